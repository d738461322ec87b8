"""``lotto imp``: winning tickets by iterative magnitude pruning."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from lotto.cli.common import replicates_of, whole_numbers, writable
from lotto.cli.options import Changes, Execution
from lotto.cli.screen import console, say
from lotto.cli.stopping import stopping


def imp(
    recipe: Positional[str],
    /,
    *,
    levels: int | None = None,
    rate: float | None = None,
    rewind_to: str | None = None,
    replicates: str | None = None,
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
        rate: fraction of the remaining weights pruned per level (default: the recipe's, mostly 0.2).
        rewind_to: step the weights go back to: 0it, 500it, 2ep.
        replicates: initialisations and data orders (default: 5 on MNIST and MNIST-1D, 8 on CIFAR-10 but for VGGs, 3
            elsewhere); auto: that many, and as many more where the first level that does not match is borderline.
        controls: reinit, random, both separated by a comma, or none.
        control_levels: levels at which controls are trained: all, or 8,14.
        density: prune until at most this fraction is left, instead of --levels.
        one_shot: a single cut to the final density.
        after: what follows pruning: weights (rewind them), lr, finetune, reinit.
        order: whether the levels of a replicate share their data order: shared or fresh.
        rewind_optimizer: restore the optimizer's state at the rewind step too.
        adaptive: choose what is pruned at each level by trial; --density is where to stop, --levels how many at most.
        particles: copies of each ticket on different data orders; their average is pruned (SWAMP).
        seed: replicate r uses the seeds seed + r.
    """
    from lotto.cli.display import Display
    from lotto.lottery.plan import make_plan
    from lotto.lottery.search import run_plan
    from lotto.report.metric import Metric
    from lotto.report.outcome import advice, headline
    from lotto.report.save import place, save_result
    from lotto.report.table import adaptive_summary, console_table

    stopping.unwind()
    began = time.perf_counter()
    chosen = changes.apply(recipe)
    options: dict[str, Any] = {
        "levels": levels,
        "rate": rate,
        "rewind_to": rewind_to,
        "replicates": replicates_of(replicates),
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
    folder = writable(execution.out or Path("lotto-results") / recipe, [place(plan)])
    with Display(console, plan.jobs) as display:
        result = run_plan(plan, engine, display)
    seconds = time.perf_counter() - began
    paths = save_result(result, folder, f"lotto {shlex.join(sys.argv[1:])}", seconds)
    table = result.table()
    metric = Metric.of(chosen)
    console.print(console_table(table, metric))
    if plan.adaptive:
        say(adaptive_summary(result))
    say(headline(table, result.matching_level, result.chosen_level, metric), "bold")
    if more := advice(table, result.matching_level, f"--replicates {2 * plan.replicates}, or auto"):
        say(more)
    if plan.first_look:
        taken = 1 + (result.plan.replicates > plan.first_look)
        say(f"Bounds of {plan.confidence:.1%} each, which hold 95 % over two looks; looks taken: {taken}.")
    if empty := table["empty_layers"].iloc[result.chosen_level]:
        say(f"Warning: layers of the ticket are pruned to nothing: {empty}.")
    for sentence in result.diverged:
        say(sentence)
    if result.left_out:
        say(result.left_out)
    if "ticket" in paths:
        say(f"Ticket  {paths['ticket']}")
    say(f"Report  {paths['report']}")
    say(f"{display.trained} computed, {display.remembered} remembered, {seconds:.1f} s.")
