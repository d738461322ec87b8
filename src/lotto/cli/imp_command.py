"""``lotto imp``: winning tickets by iterative magnitude pruning."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from lotto.cli.common import find_modules_of, writable
from lotto.cli.options import Changes, Execution
from lotto.cli.plan_options import plan_of, with_plan_options
from lotto.cli.screen import console, say
from lotto.cli.stopping import stopping
from lotto.core.one_thread import import_pandas
from lotto.recipe.titles import check_name


@with_plan_options
def imp(
    recipe: Positional[str],
    /,
    *,
    dry_run: bool = False,
    config: Path | None = None,
    changes: Changes,
    execution: Execution,
    **options: Any,
) -> None:
    """Find winning tickets: iterative magnitude pruning with rewinding.

    Trains, prunes, rewinds, trains again; prints the table of levels, names the sparsest level that matches the
    dense network, and writes the ticket, CSV tables and report.html. Finished trainings are remembered: the same
    command again trains nothing, and a command that was cut off goes on where it stopped.

    Args:
        recipe: a preset's name; `lotto recipes` lists them. Or package.module:recipe.
        dry_run: train nothing; print the plan, what is trained, about how long it takes and what the store takes.
        config: a TOML file of options by name, such as levels = 8; what is typed here wins.
    """
    check_name(recipe)  # before what takes seconds to import
    import_pandas()
    from lotto.cli.display import Display
    from lotto.lottery.forecast import forecast
    from lotto.lottery.plan import make_plan
    from lotto.lottery.search import run_plan
    from lotto.report.arithmetic import trained_by
    from lotto.report.forecast import forecast_lines
    from lotto.report.metric import Metric
    from lotto.report.outcome import advice, headline
    from lotto.report.save import place, save_result
    from lotto.report.table import adaptive_summary, console_table

    stopping.unwind(execution.seconds)
    template = execution.warmed()
    find_modules_of(options["score"])
    began = time.perf_counter()
    chosen = changes.apply(recipe)
    plan = make_plan(chosen, plan_of(options))
    engine = execution.engine(chosen, template)
    if dry_run:
        for line in forecast_lines(forecast(plan, engine)):
            say(line)
        return
    folder = writable(execution.out or Path("lotto-results") / recipe, [place(plan)])
    with execution.tracking() as watching:
        with Display(console, plan.jobs) as display:
            result = run_plan(plan, engine, watching.beside(display))
        seconds = time.perf_counter() - began
        paths = save_result(result, folder, f"lotto {shlex.join(sys.argv[1:])}", seconds)
        for kind in ("table", "runs", "report", "ticket"):
            if kind in paths:
                watching.artifact(paths[kind])
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
    if sentence := trained_by(run.arithmetic for run in result.runs.values()):
        say(sentence)
    if result.left_out:
        say(result.left_out)
    if "ticket" in paths:
        say(f"Ticket  {paths['ticket']}")
    say(f"Report  {paths['report']}")
    say(f"{display.trained} computed, {display.remembered} remembered, {seconds:.1f} s.")
