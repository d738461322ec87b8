"""The command line: a thin face on the library."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from tyro.conf import Positional, UseAppendAction

from lotto.core.errors import LottoError, StorageError, UsageError
from lotto.recipe import presets
from lotto.recipe.recipe import Recipe

if TYPE_CHECKING:
    from lotto.execution.engine import Engine

console = Console()
errors = Console(stderr=True)


@dataclass(frozen=True)
class Changes:
    """What is changed in a preset."""

    steps: str | None = None
    """Length of training: 8ep, 2000it."""
    batch_size: int | None = None
    """Examples per step."""
    lr: float | None = None
    """Peak learning rate."""
    precision: str | None = None
    """float32, bfloat16 or float64."""
    device: str | None = None
    """auto, cpu or cuda."""
    compile: bool | None = None
    """Compile the steps of convolutional and your own networks (torch.compile)."""
    set: UseAppendAction[tuple[str, ...]] = ()
    """Any field of the recipe: --set optimizer.momentum=0.9 --set schedule.kind=cosine."""

    def apply(self, name: str) -> Recipe:
        """The preset with the changes, its data downloaded if they are not in the cache."""
        changes: dict[str, Any] = {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "optimizer__lr": self.lr,
            "precision": self.precision,
            "device": self.device,
            "compile": self.compile,
        }
        changed = overridden(presets.get(name), {k: v for k, v in changes.items() if v is not None}, self.set)
        if isinstance(changed.data, str):
            _load_with_progress(changed.data)
        return changed


@dataclass(frozen=True)
class Execution:
    """How and where it is run."""

    jobs: str = "auto"
    """Worker processes, or auto (one per core)."""
    threads: int = 1
    """Threads of each worker; one gives the same bits every time."""
    stack: str = "auto"
    """Jobs that train together in each worker: a number, measured, or auto (measured on a GPU, else 1)."""
    out: Path | None = None
    """Folder of the results (default: in lotto-results)."""
    store: Path | None = None
    """Folder where runs are remembered (default: LOTTO_STORE or the user's cache)."""

    def engine(self, recipe: Recipe) -> Engine:
        """The engine for a recipe."""
        from lotto.execution.factory import make
        from lotto.execution.store import Store

        return make(self.jobs, Store(self.store), self.threads, self.stack, recipe.device)


def imp(
    recipe: Positional[str],
    /,
    *,
    levels: int | None = None,
    rate: float | None = None,
    rewind_to: str | None = None,
    replicates: int = 3,
    controls: str = "reinit,random",
    control_levels: str = "all",
    density: float | None = None,
    one_shot: bool = False,
    after: str = "weights",
    order: str = "shared",
    rewind_optimizer: bool = False,
    adaptive: bool = False,
    particles: int = 1,
    seed: int = 0,
    changes: Changes,
    execution: Execution,
) -> None:
    """Find winning tickets: iterative magnitude pruning with rewinding.

    Trains, prunes, rewinds, trains again; prints the table of levels, names the sparsest level that matches the
    dense network, and writes the ticket, CSV tables and report.html. Finished trainings are remembered: the same
    command again trains nothing, and a command that was cut off goes on where it stopped.

    Args:
        recipe: a preset's name; `lotto recipes` lists them.
        levels: pruning levels after the dense one (default 16).
        rate: share of the remaining weights pruned per level (default: the recipe's, mostly 0.2).
        rewind_to: step the weights go back to: 0it, 500it, 2ep.
        replicates: initialisations and data orders.
        controls: reinit, random, both separated by a comma, or none.
        control_levels: levels at which controls are trained: all, or 8,14.
        density: prune until at most this fraction is left, instead of --levels.
        one_shot: a single cut to the final density.
        after: what follows pruning: weights (rewind them), lr, finetune, reinit.
        order: whether the levels of a replicate share their data order: shared or fresh.
        rewind_optimizer: restore the optimizer's state at the rewind step too.
        adaptive: choose the share pruned at each level by trial; --density is where to stop, --levels how many at most.
        particles: copies of each ticket on different data orders; their average is pruned (SWAMP).
        seed: replicate r uses the seeds seed + r.
    """
    from lotto.cli.display import Display
    from lotto.lottery.plan import make_plan
    from lotto.lottery.search import run_plan
    from lotto.report.save import save_result
    from lotto.report.table import adaptive_summary, console_table

    began = time.perf_counter()
    chosen = changes.apply(recipe)
    options: dict[str, Any] = {
        "levels": levels,
        "rate": rate,
        "rewind_to": rewind_to,
        "replicates": replicates,
        "controls": [] if controls == "none" else controls.split(","),
        "control_levels": None if control_levels == "all" else whole_numbers(control_levels, "--control-levels"),
        "density": density,
        "one_shot": one_shot,
        "after": after,
        "order": order,
        "rewind_optimizer": rewind_optimizer,
        "adaptive": adaptive,
        "particles": particles,
        "seed": seed,
    }
    plan = make_plan(chosen, **options)
    engine = execution.engine(chosen)
    folder = writable(execution.out or Path("lotto-results") / recipe)
    with Display(console, plan.jobs) as display:
        result = run_plan(plan, engine, display)
    seconds = time.perf_counter() - began
    paths = save_result(result, folder, f"lotto {shlex.join(sys.argv[1:])}", seconds)
    table = result.table()
    console.print(console_table(table, chosen.tolerance, chosen.error_unit))
    if plan.adaptive:
        console.print(adaptive_summary(result), highlight=False)
    best = table[table["matching"]].iloc[-1]
    if best["level"]:
        console.print(
            f"[bold]Sparsest matching ticket: level {best['level']}, {100 * best['density']:.3g} % of the weights[/] "
            f"(error {best['error']:.2f}, dense {best['dense_error']:.2f})."
        )
    else:
        console.print("[bold]No pruned level matches the dense network.[/]")
    if "ticket" in paths:
        console.print(f"Ticket  {paths['ticket']}", highlight=False)
    console.print(f"Report  {paths['report']}", highlight=False)
    console.print(f"{display.trained} computed, {display.remembered} remembered, {seconds:.1f} s.", highlight=False)


def run(
    name: Positional[str],
    recipe: Positional[str] = "mlp-mnist1d",
    /,
    *,
    replicates: int = 3,
    rewind_to: str | None = None,
    levels: int = 10,
    orders: int = 2,
    points: int = 30,
    examples: int | None = None,
    seed: int = 0,
    eval_levels: Annotated[str | None, tyro.conf.arg(aliases=["--look-at"])] = None,
    changes: Changes,
    execution: Execution,
) -> None:
    """Run an experiment of the papers: stabilizing.distances, unmasking.connectivity, ... or unmasking.all.

    Writes a tidy CSV and draws report.html of all experiments in the folder. What has been computed is remembered.

    Args:
        name: the experiment.
        recipe: a preset's name; `lotto recipes` lists them.
        replicates: initialisations.
        rewind_to: rewind steps, separated by commas: 0it,500it,2ep (default: the experiment's or the recipe's).
        levels: pruning levels to the density that is evaluated.
        orders: data orders of each measure; their pairs are its samples.
        points: positions on a path between networks.
        examples: at most so many examples of each split on a path.
        seed: replicate r uses the seeds seed + r.
        eval_levels: levels that subnetworks evaluates: 5,10 (default: half of them and all).
    """
    from lotto import papers
    from lotto.cli.display import Display
    from lotto.report.experiments import readable, save_experiment
    from lotto.report.table import frame_table

    experiments = papers.select(name)
    chosen = changes.apply(recipe)
    given: dict[str, Any] = {
        "replicates": replicates,
        "rewind_to": tuple(rewind_to.split(",")) if rewind_to else (),
        "levels": levels,
        "orders": orders,
        "points": points,
        "examples": examples,
        "seed": seed,
        "eval_levels": tuple(whole_numbers(eval_levels, "--eval-levels")) if eval_levels else (),
    }
    folder = writable(execution.out or Path("lotto-results") / name.partition(".")[0] / recipe)
    engine = execution.engine(chosen)
    for experiment in experiments:
        began = time.perf_counter()
        options = experiment.options(chosen, given)
        with Display(console) as display:
            frame = experiment.run(options, engine, display)
        seconds = time.perf_counter() - began
        command, known = f"lotto {shlex.join(sys.argv[1:])}", [*papers.EXPERIMENTS.values()]
        page = save_experiment(experiment, options, frame, folder, command, seconds, known)
        console.print(frame_table(readable(frame), f"{experiment.title} ({experiment.source})"))
        console.print(f"Rows    {folder / experiment.name}.csv\nReport  {page}", highlight=False)
        console.print(f"{display.trained} computed, {display.remembered} remembered, {seconds:.1f} s.", highlight=False)


def data(
    action: Positional[Literal["get", "list"]],
    name: Positional[str] = "",
    /,
) -> None:
    """Download a data set into the cache, or list the sets.

    Args:
        action: get or list.
        name: the data set, for get.
    """
    from lotto.data import IMAGENET, NAMES
    from lotto.data.sources import download
    from lotto.data.sources.catalog import PUBLISHED

    if action == "get":
        if not name:
            raise UsageError(f"Name a data set: lotto data get NAME. Choices: {', '.join(NAMES)}.")
        loaded = _load_with_progress(name)
        console.print(
            f"{name}: {loaded.size()} training and {loaded.size('test')} test examples of shape {loaded.shape}, "
            f"{loaded.classes} classes.",
            highlight=False,
        )
        return
    for known in NAMES:
        path = download.cache_folder() / f"{known}.safetensors"
        state = ("in the cache" if path.exists() else "not downloaded") if known in PUBLISHED else "computed"
        if known in IMAGENET:
            state = f"your own folder, {download.cache_folder() / 'imagenet'}"
        console.print(f"{known:15} {state}", highlight=False)


def list_recipes() -> None:
    """List the presets."""
    table = Table("recipe", "what it is")
    for name, preset in presets.PRESETS.items():
        table.add_row(name, (preset.__doc__ or "").splitlines()[0])
    console.print(table)


def report(folder: Positional[Path], /) -> None:
    """Make report.html again from a folder of results, and print its table.

    Args:
        folder: what --out named.
    """
    from lotto import papers
    from lotto.report.experiments import write_experiments
    from lotto.report.html import write_report
    from lotto.report.save import load_result
    from lotto.report.table import console_table

    if not (folder / "result.json").exists() and any(folder.glob("*.csv")):
        console.print(f"Report  {write_experiments(folder, [*papers.EXPERIMENTS.values()])}", highlight=False)
        return
    result = load_result(folder)
    write_report(result, folder / "report.html")
    console.print(console_table(result["table"], float(result["recipe"]["tolerance"]), result["error_unit"]))
    console.print(f"Report  {folder / 'report.html'}", highlight=False)


def claims(paper: Positional[str] = "stabilizing", folder: Positional[Path | None] = None, /) -> None:
    """Decide the claims of a paper from stored results.

    Reads every experiment in a folder and below it, puts equal training settings together, and writes claims.csv
    beside them. Supported or contradicted: the 95 % interval of the statistic over replicates is on one side of the
    threshold.

    Args:
        paper: stabilizing or unmasking.
        folder: where the results are (default: lotto-results/PAPER).
    """
    from lotto import papers
    from lotto.core import files
    from lotto.experiments.claims import as_frame
    from lotto.experiments.results import grouped, read_below
    from lotto.report.claims import console_claims

    known = papers.claims_of(paper)
    folder = folder or Path("lotto-results") / paper
    decisions = papers.check_claims(known, grouped(read_below(folder)))
    for part in console_claims(decisions):
        console.print(part, highlight=False)
    files.write_text(folder / "claims.csv", as_frame(decisions).to_csv(index=False))
    console.print(f"Table   {folder / 'claims.csv'}", highlight=False)


def export(
    result: Positional[Path],
    /,
    *,
    compact: bool = False,
    out: Path | None = None,
) -> None:
    """Write the trained ticket of a result as a program that runs with torch alone, and measure it.

    The file is for torch.export.load(FILE).module(). Compared on the test set and in turns against each other: the
    pruned network, the compact one, and the compact one with its sparse linear layers as compressed rows.

    Args:
        result: a folder that `lotto imp` wrote, or its ticket.safetensors.
        compact: remove units that are cut off; the outputs stay the same.
        out: the file (default: pruned.pt2 or compact.pt2 beside the ticket).
    """
    from lotto.inference import export as exporting
    from lotto.report.table import export_table

    recipe, module, about = exporting.load_trained(result, _load_with_progress)
    folder = result if result.is_dir() else result.parent
    kind = "compact" if compact else "pruned"
    made, measured = exporting.variants(recipe, module)
    path = exporting.save_program(made[kind], recipe, out or folder / f"{kind}.pt2")
    console.print(export_table(measured, float(about["density"]), recipe.error_unit))
    console.print(f"Program {path} ({path.stat().st_size / 1e6:.3g} MB)", highlight=False)


def bench(
    names: Positional[tuple[str, ...]] = (),
    /,
    *,
    repetitions: int = 5,
    out: Path | None = None,
) -> None:
    """Measure speed as ratios within one run, pair by pair.

    Args:
        names: which benchmarks: lenet, resnet, sparse, wide, cut, width, stacked, path, hessian, again,
            replicates, whole, memory (default: all); paper takes a quarter of an hour, so only by name.
        repetitions: interleaved repetitions of each pair.
        out: write the table as CSV.
    """
    from lotto.benchmarks import run_benchmarks

    run_benchmarks(names, repetitions, console, out)


def overridden(recipe: Recipe, changes: Mapping[str, Any], pairs: Sequence[str]) -> Recipe:
    """Apply fields by name and ``key=value`` texts."""
    changes = dict(changes)
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--set takes field=value, such as optimizer.lr=0.05; got {pair!r}.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        changes[key.strip().replace("-", "_").replace(".", "__")] = value
    try:
        return recipe.replace(**changes)
    except (TypeError, AttributeError, ValueError) as error:
        if isinstance(error, LottoError):
            raise
        raise UsageError(f"A value of --set has the wrong type: {error}.") from error


def writable(folder: Path) -> Path:
    """Make the folder of the results before anything is trained for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise StorageError(f"Cannot write to {folder}: {error.strerror}. Name another folder with --out.") from error
    return folder


def whole_numbers(text: str, option: str) -> list[int]:
    """Read ``8,14``."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{option} takes whole numbers separated by commas; got {text!r}.") from error


def _load_with_progress(name: str) -> Any:
    from lotto.cli.display import download_display
    from lotto.data import load

    with download_display(console) as progress:
        return load(name, progress)


COMMANDS: dict[str, Callable[..., None]] = {
    "imp": imp,
    "run": run,
    "claims": claims,
    "data": data,
    "recipes": list_recipes,
    "report": report,
    "export": export,
    "bench": bench,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 2 on what the user can put right, 130 on Ctrl-C."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=errors, show_path=False, show_time=False)],
    )
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="lotto",
            description="Find winning tickets: sparse subnetworks that train as well as the whole network.",
            args=arguments,
            config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
        )
    except LottoError as error:
        errors.print(f"[bold red]lotto:[/] {_escaped(str(error))}", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("Stopped. Finished trainings are kept; the same command goes on from here.")
        sys.exit(130)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
