"""``lotto power``: how many replicates a verdict takes, before the long command."""

from __future__ import annotations

import math

from tyro.conf import Positional

from lotto.cli.options import Changes, Machine
from lotto.cli.screen import console, say
from lotto.cli.stopping import stopping
from lotto.core.one_thread import import_pandas
from lotto.recipe.titles import check_name


def power(
    recipe: Positional[str],
    /,
    *,
    rewind_to: str | None = None,
    replicates: int | None = None,
    seed: int = 0,
    changes: Changes,
    machine: Machine,
) -> None:
    """Count the replicates that decide whether a level matches, from the dense network alone.

    Trains the dense network of each replicate, which `lotto imp` needs as well, and a copy of it that goes on from the
    rewind step with another data order. How far these differ says how many replicates show a gap to be within the
    tolerance, or beyond it. What has been trained is remembered.

    Args:
        recipe: a preset's name; `lotto recipes` lists them.
        rewind_to: step at which the copies part: 0it, 500it, 2ep (default: the recipe's).
        replicates: how many are trained (default: that of imp).
        seed: replicate r uses the seeds seed + r.
    """
    check_name(recipe)  # before what takes seconds to import
    import_pandas()
    from lotto.cli.display import Display
    from lotto.lottery.plan import number_of_replicates
    from lotto.lottery.power import gap_spread
    from lotto.report.metric import Metric
    from lotto.report.power import power_table, spread_sentences

    stopping.unwind(machine.seconds)
    template = machine.warmed()
    chosen = changes.apply(recipe)
    count, _ = number_of_replicates(chosen, replicates)
    with Display(console, 2 * count) as display:
        found = gap_spread(
            chosen, rewind_to, count, seed=seed, engine=machine.engine(chosen, template), progress=display
        )
    metric = Metric.of(chosen)
    console.print(power_table(found, metric))
    for sentence in spread_sentences(found, metric):
        say(sentence)
    if math.isfinite(need := found.table()["replicates"].iloc[0]):
        say(f"Then: lotto imp {recipe} --replicates {max(2, int(need))}, or --replicates auto.", "bold")
    say(f"{display.trained} computed, {display.remembered} remembered.")
