"""The command line: a thin face on the library."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from tyro.conf import Positional, UseAppendAction

from lotto import recipes
from lotto.errors import LottoError, StorageError, UsageError

console = Console()
errors = Console(stderr=True)


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
    steps: str | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    precision: str | None = None,
    device: str | None = None,
    set: UseAppendAction[tuple[str, ...]] = (),
    seed: int = 0,
    jobs: str = "auto",
    threads: int = 1,
    out: Path | None = None,
    store: Path | None = None,
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
        steps: length of training: 8ep, 2000it.
        batch_size: examples per step.
        lr: peak learning rate.
        precision: float32, bfloat16 or float64.
        device: auto, cpu or cuda.
        set: any field of the recipe: --set optimizer.momentum=0.9 --set schedule.kind=cosine.
        seed: replicate r uses the seeds seed + r.
        jobs: worker processes, or auto (one per core).
        threads: threads of each worker.
        out: folder of the results (default lotto-results/RECIPE).
        store: folder where runs are remembered (default LOTTO_STORE or the user's cache).
    """
    from lotto.engine import make
    from lotto.imp import make_plan, run_plan
    from lotto.progress import Display
    from lotto.report import console_table, save_result
    from lotto.store import Store

    began = time.perf_counter()
    chosen = overridden(
        recipes.get(recipe),
        set,
        steps=steps,
        batch_size=batch_size,
        precision=precision,
        device=device,
        optimizer__lr=lr,
    )
    if isinstance(chosen.data, str):
        _load_with_progress(chosen.data)
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
        "seed": seed,
    }
    plan = make_plan(chosen, **options)
    engine = make(jobs, Store(store), threads)
    folder = writable(out or Path("lotto-results") / recipe)
    with Display(console, plan.jobs) as display:
        result = run_plan(plan, engine, display)
    seconds = time.perf_counter() - began
    paths = save_result(result, folder, f"lotto {shlex.join(sys.argv[1:])}", seconds)
    table = result.table()
    console.print(console_table(table, chosen.tolerance, chosen.error_unit))
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
    console.print(f"{display.trained} trained, {display.remembered} remembered, {seconds:.1f} s.", highlight=False)


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
    steps: str | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    precision: str | None = None,
    device: str | None = None,
    set: UseAppendAction[tuple[str, ...]] = (),
    seed: int = 0,
    jobs: str = "auto",
    threads: int = 1,
    out: Path | None = None,
    store: Path | None = None,
) -> None:
    """Run an experiment of the papers: stabilizing.distances, rewind, instability, subnetworks, sparsity, ...

    Writes a tidy CSV and draws report.html of all experiments in the folder. What has been computed is remembered.

    Args:
        name: the experiment.
        recipe: a preset's name; `lotto recipes` lists them.
        replicates: initialisations.
        rewind_to: rewind steps, separated by commas: 0it,500it,2ep (default: the experiment's or the recipe's).
        levels: pruning levels to the density that is looked at.
        orders: data orders of each measure; their pairs are its samples.
        points: positions on a path between networks.
        examples: at most so many examples of each split on a path.
        steps: length of training: 8ep, 2000it.
        batch_size: examples per step.
        lr: peak learning rate.
        precision: float32, bfloat16 or float64.
        device: auto, cpu or cuda.
        set: any field of the recipe: --set optimizer.momentum=0.9.
        seed: replicate r uses the seeds seed + r.
        jobs: worker processes, or auto (one per core).
        threads: threads of each worker.
        out: folder of the results (default lotto-results/PAPER/RECIPE).
        store: folder where runs are remembered (default LOTTO_STORE or the user's cache).
    """
    from lotto import papers
    from lotto.engine import make
    from lotto.progress import Display
    from lotto.report import frame_table, readable, save_experiment
    from lotto.store import Store

    began = time.perf_counter()
    experiment = papers.get(name)
    chosen = overridden(
        recipes.get(recipe),
        set,
        steps=steps,
        batch_size=batch_size,
        precision=precision,
        device=device,
        optimizer__lr=lr,
    )
    if isinstance(chosen.data, str):
        _load_with_progress(chosen.data)
    rewinds = tuple(rewind_to.split(",")) if rewind_to else experiment.rewind_to
    options = papers.Options(chosen, replicates, rewinds, levels, orders, points, examples, seed)
    folder = writable(out or Path("lotto-results") / name.partition(".")[0] / recipe)
    with Display(console) as display:
        frame = experiment.run(options, make(jobs, Store(store), threads), display)
    seconds = time.perf_counter() - began
    page = save_experiment(experiment, options, frame, folder, f"lotto {shlex.join(sys.argv[1:])}", seconds)
    shown = readable(frame)
    console.print(frame_table(shown, f"{experiment.title} ({experiment.source})"))
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
    from lotto.data import NAMES, fetch
    from lotto.data.catalog import PUBLISHED

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
        path = fetch.cache_folder() / f"{known}.safetensors"
        state = ("in the cache" if path.exists() else "not downloaded") if known in PUBLISHED else "computed"
        console.print(f"{known:15} {state}", highlight=False)


def list_recipes() -> None:
    """List the presets."""
    table = Table("recipe", "what it is")
    for name, preset in recipes.PRESETS.items():
        table.add_row(name, (preset.__doc__ or "").splitlines()[0])
    console.print(table)


def report(folder: Positional[Path], /) -> None:
    """Make report.html again from a folder of results, and print its table.

    Args:
        folder: what --out named.
    """
    from lotto.report import console_table, load_result, write_experiments, write_report

    if not (folder / "result.json").exists() and any(folder.glob("*.csv")):
        console.print(f"Report  {write_experiments(folder)}", highlight=False)
        return
    result = load_result(folder)
    write_report(result, folder / "report.html")
    console.print(console_table(result["table"], float(result["recipe"]["tolerance"]), result["error_unit"]))
    console.print(f"Report  {folder / 'report.html'}", highlight=False)


def bench(
    names: Positional[tuple[str, ...]] = (),
    /,
    *,
    repetitions: int = 5,
    out: Path | None = None,
) -> None:
    """Measure speed as ratios within one run, pair by pair.

    Args:
        names: which benchmarks: lenet, resnet (default: all).
        repetitions: interleaved repetitions of each pair.
        out: write the table as CSV.
    """
    from lotto.benchmarks import run_benchmarks

    run_benchmarks(names, repetitions, console, out)


def overridden(recipe: recipes.Recipe, pairs: Sequence[str], **direct: Any) -> recipes.Recipe:
    """Apply ``key=value`` texts and the direct options that were given."""
    changes = {k: v for k, v in direct.items() if v is not None}
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
        raise UsageError(f"{option} takes whole numbers separated by commas, or all; got {text!r}.") from error


def _load_with_progress(name: str) -> Any:
    from lotto.data import load
    from lotto.progress import download_display

    with download_display(console) as progress:
        return load(name, progress)


COMMANDS: dict[str, Callable[..., None]] = {
    "imp": imp,
    "run": run,
    "data": data,
    "recipes": list_recipes,
    "report": report,
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
            config=(tyro.conf.FlagCreatePairsOff,),
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
