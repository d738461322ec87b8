"""The claims of *Pruning Neural Networks at Initialization: Why Are We Missing the Mark?* (2009.08576, abstract).

Each is decided at the density of the data set (see `lotto.papers.stabilizing.claims`) by errors with one value per
replicate. Methods before training are those at step 0; magnitude after training is iterative, rewound to the first
stored step from `SMALL` of training on, or to 0 where none is stored.
"""

from __future__ import annotations

import pandas as pd

from lotto.experiments.claims import SMALL, Claim, Find, Found, gap, small_step
from lotto.experiments.conditions import CONVERGED
from lotto.experiments.evidence import above, below
from lotto.experiments.measures import ERROR, Kind
from lotto.experiments.results import ResultGroup
from lotto.papers.missing_the_mark.measures import AFTER, BEFORE, FRESH, METHODS, OWN, RANDOM, SHUFFLED
from lotto.papers.stabilizing.places import density_of, level_at

ABLATIONS = {"shuffled within layers": SHUFFLED, "put on a new initialisation": FRESH}


def _step(group: ResultGroup, name: str) -> int | None:
    """The rewind step at which a method is looked at."""
    if METHODS[name].before:
        return 0
    steps = group.rewind_steps(ERROR, kind=OWN[name])
    small = small_step(group, steps)
    return small if small is not None else 0 if 0 in steps else None


def errors_of(group: ResultGroup, name: str, kinds: dict[str, Kind] = OWN) -> tuple[int, pd.Series] | None:
    """The level that decides and, by seed, the error of a method's mask or of an ablation of it above the dense one."""
    level = level_at(group, density_of(group), group.rows(ERROR, kind=OWN[name]))
    step = _step(group, name)
    if level is None or step is None:
        return None
    found = gap(group, step, level, kinds[name])
    return (level, found) if len(found) else None


def difference(
    group: ResultGroup, first: tuple[str, dict[str, Kind]], second: tuple[str, dict[str, Kind]]
) -> tuple[str, pd.Series] | None:
    """Where it is, and the error of one minus that of another, by seed."""
    one, two = errors_of(group, *first), errors_of(group, *second)
    if one is None or two is None:
        return None
    found = (one[1] - two[1]).dropna()
    left = group.rows(ERROR, kind=OWN[second[0]], level=two[0])["density"].mean()
    where = f"{100 * left:.3g} % left" + "".join(
        f", {METHODS[name].title} rewound to {_step(group, name)}"
        for name in dict.fromkeys((first[0], second[0]))
        if not METHODS[name].before
    )
    return (where, found) if len(found) else None


def better_than_random(name: str) -> Find:
    """Error of a random mask minus that of a method's."""

    def find(group: ResultGroup) -> Found | None:
        found = difference(group, (RANDOM, OWN), (name, OWN))
        return found and Found(found[0], above(found[1], 0.0))

    return find


def worse_than_after(name: str) -> Find:
    """Error of a method before training minus that of magnitude after training."""

    def find(group: ResultGroup) -> Found | None:
        found = difference(group, (name, OWN), (AFTER, OWN))
        return found and Found(found[0], above(found[1], 0.0))

    return find


def survives(name: str, ablation: str) -> Find:
    """Error of an ablation minus that of the method's own mask, below the tolerance."""

    def find(group: ResultGroup) -> Found | None:
        found = difference(group, (name, ABLATIONS[ablation]), (name, OWN))
        return found and Found(found[0], below(found[1], group.tolerance))

    return find


def suffers(name: str, ablation: str) -> Find:
    """Error of an ablation minus that of the method's own mask, above 0."""

    def find(group: ResultGroup) -> Found | None:
        found = difference(group, (name, ABLATIONS[ablation]), (name, OWN))
        return found and Found(found[0], above(found[1], 0.0))

    return find


_SOURCE = "2009.08576, abstract"
_RUN = "lotto run missing_the_mark.ablations resnet20-mnist1d --densities 0.35,0.2,0.1,0.05 --rewind-to 0it"
_LATER = "lotto run missing_the_mark.ablations resnet20-mnist1d --densities 0.35,0.2,0.1,0.05 --rewind-to 50it,100it"
_LATER += " --methods imp"


def _claims() -> list[tuple[str, str, str, str, Find]]:
    found: list[tuple[str, str, str, str, Find]] = []
    for name in BEFORE:
        title = METHODS[name].title[:1].upper() + METHODS[name].title[1:]
        found += [
            (
                f"{title} surpasses random pruning.", "error of a random mask, the same density in all layers, minus "
                "that of the method's, above 0", "all surpass the trivial baseline", _RUN, better_than_random(name),
            ),
            (
                f"{title} stays behind magnitude after training.", "error minus that of iterative magnitude pruning, "
                f"rewound to the first stored k from {SMALL:.0%} of training (else 0), above 0",
                "all remain below it", _RUN, worse_than_after(name),
            ),
            *(
                (
                    f"{title} loses nothing when its mask is {ablation}.",
                    f"error of the mask {ablation} minus that of the method's, below the tolerance",
                    "preserves or improves accuracy", _RUN, survives(name, ablation),
                )
                for ablation in ABLATIONS
            ),
        ]  # fmt: skip
    found += [
        (
            f"Magnitude after training loses when its mask is {ablation}.",
            f"error of the mask {ablation} minus that of iterative magnitude pruning, rewound as above, above 0",
            "unlike pruning after training", _LATER, suffers(AFTER, ablation),
        )
        for ablation in ABLATIONS
    ]  # fmt: skip
    return found


CLAIMS = tuple(
    Claim(number, sentence, _SOURCE, statistic, paper, command, find, (CONVERGED,))
    for number, (sentence, statistic, paper, command, find) in enumerate(_claims(), 1)
)
