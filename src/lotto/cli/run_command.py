"""``lotto run``: experiments of the papers."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from lotto.cli.common import numbers, whole_numbers, writable
from lotto.cli.options import Changes, Execution
from lotto.cli.screen import console, say
from lotto.cli.stopping import stopping
from lotto.core.one_thread import import_pandas
from lotto.recipe.titles import check_name


def run(
    name: Positional[str],
    recipe: Positional[str] = "mlp-mnist1d",
    /,
    *,
    replicates: int | None = None,
    rewind_to: str | None = None,
    levels: int = 10,
    densities: str | None = None,
    orders: int = 3,
    points: int = 30,
    examples: int | None = None,
    seed: int = 0,
    random_chain: bool = True,
    restart_dense: bool = False,
    eval_levels: Annotated[str | None, tyro.conf.arg(aliases=["--look-at"])] = None,
    control_steps: str | None = None,
    methods: str | None = None,
    factors: str | None = None,
    config: Path | None = None,
    changes: Changes,
    execution: Execution,
) -> None:
    """Run an experiment of the papers: stabilizing.distances, unmasking.connectivity, ... or unmasking.all.

    Writes a tidy CSV and draws report.html of all experiments in the folder. What has been computed is remembered.

    Args:
        name: the experiment.
        recipe: a preset's name; `lotto recipes` lists them.
        replicates: initialisations (default: 5 on MNIST and MNIST-1D, 8 on CIFAR-10 but for VGGs, 3 elsewhere).
        rewind_to: rewind steps, separated by commas: 0it,500it,2ep (default: the experiment's or the recipe's).
        levels: pruning levels to the density that is evaluated.
        densities: what is left after each level, instead of levels: 0.35,0.12,0.06.
        orders: data orders of each measure; their pairs are its samples.
        points: positions on a path between networks.
        examples: at most so many examples of each split on a path.
        seed: replicate r uses the seeds seed + r.
        random_chain: whether connectivity also trains nested random masks, as a control.
        restart_dense: whether level 0, too, is trained from the rewind point with a new optimizer, as in OPENLTH.
        eval_levels: levels that subnetworks evaluates: 5,10 (default: half of them and all).
        control_steps: rewind steps at which sparsity trains controls: 0it,100it, or none (default: all).
        methods: what missing_the_mark.ablations, modes.solutions, methods.compute prune by: snip,imp (default: all);
            where hidden.moved trains tickets: adam,mirrored (default: another optimizer, and inputs backwards).
        factors: widths of permuted.widths, or rates of hidden.budget, times the recipe's: 0.5,1 (default: 0.5,1,2).
        config: a TOML file of options by name, such as levels = 8; what is typed here wins.
    """
    check_name(recipe)  # before what takes seconds to import
    import_pandas()
    from lotto import papers
    from lotto.cli.display import Display
    from lotto.experiments.gaps import gap_table
    from lotto.report.against_dense import readable_gaps, sentences
    from lotto.report.experiments import Figures, places_of, readable, save_experiment
    from lotto.report.metric import Metric
    from lotto.report.table import frame_table

    stopping.unwind(execution.seconds)
    template = execution.warmed()
    experiments = papers.select(name)
    chosen = changes.apply(recipe)
    given: dict[str, Any] = {
        "replicates": replicates,
        "rewind_to": tuple(rewind_to.split(",")) if rewind_to else (),
        "levels": levels,
        "densities": tuple(numbers(densities, "--densities")) if densities else (),
        "orders": orders,
        "points": points,
        "examples": examples,
        "seed": seed,
        "random_chain": random_chain,
        "restart_dense": restart_dense,
        "eval_levels": tuple(whole_numbers(eval_levels, "--eval-levels")) if eval_levels else (),
        "control_steps": tuple(control_steps.split(",")) if control_steps else (),
        "methods": tuple(methods.split(",")) if methods else (),
        "factors": tuple(numbers(factors, "--factors")) if factors else (),
    }
    asked = {experiment: experiment.options(chosen, given) for experiment in experiments}
    places = [place for experiment, options in asked.items() for place in places_of(experiment, options)]
    engine = execution.engine(chosen, template)
    folder = writable(execution.out or Path("lotto-results") / name.partition(".")[0] / recipe, places)
    figures = Figures()
    with execution.tracking() as watching:
        for experiment, options in asked.items():
            began = time.perf_counter()
            counted = experiment.trainings(options) if console.is_interactive else None  # else nothing shows it
            with Display(console, trainings=counted) as display:
                frame = experiment.run(options, engine, watching.beside(display))
            seconds = time.perf_counter() - began
            command, known = f"lotto {shlex.join(sys.argv[1:])}", [*papers.EXPERIMENTS.values()]
            page = save_experiment(experiment, options, frame, folder, command, seconds, known, figures, papers.CLAIMS)
            rows = page.parent / f"{experiment.name}.csv"
            watching.artifact(rows)
            title = f"{experiment.title} ({experiment.source})"
            gaps = gap_table(frame, chosen.margin) if experiment.compares else None
            if gaps is None or gaps.empty:
                console.print(frame_table(readable(frame), title))
            else:
                console.print(frame_table(readable_gaps(gaps, Metric.of(chosen)), title))
                for sentence in sentences(frame, gaps, Metric.of(chosen)):
                    say(sentence, "bold")
            say(f"Rows    {rows}\nReport  {page}")
            say(f"{display.trained} computed, {display.remembered} remembered, {seconds:.1f} s.")
    if chosen.left_out:
        say(chosen.left_out)
