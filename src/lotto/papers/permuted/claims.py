"""The claims on permuted masks (2505.05143) and on barriers modulo permutation (Sharma et al., 2024).

Decided at the density and the small rewind step of *Stabilizing the Lottery Ticket Hypothesis*, by one value per
replicate; masks are permuted by activations, as in the paper.
"""

from __future__ import annotations

import pandas as pd

from lotto.experiments.claims import SMALL, ClaimRow, Found, numbered, small_step
from lotto.experiments.evidence import above, below
from lotto.experiments.measures import ERROR, Kind, Measure
from lotto.experiments.results import ResultGroup
from lotto.papers.permuted import measures as m
from lotto.papers.stabilizing.places import small_place, where


def _errors(group: ResultGroup, kind: Kind, k: int, level: int) -> pd.Series:
    return group.values(ERROR, kind=kind, rewind_step=k, level=level)


def better_than_naive(group: ResultGroup) -> Found | None:
    """Error under the mask as it is minus that under the permuted mask, above 0."""
    if (place := small_place(group, ERROR, m.BY_ACTIVATIONS)) is None:
        return None
    difference = (_errors(group, m.NAIVE, *place) - _errors(group, m.BY_ACTIVATIONS, *place)).dropna()
    return Found(where(group, *place), above(difference, 0.0)) if len(difference) else None


def as_good_as_own(group: ResultGroup) -> Found | None:
    """Error under the permuted mask minus that of the mask on its own initialisation, below the tolerance."""
    if (place := small_place(group, ERROR, m.BY_ACTIVATIONS)) is None:
        return None
    difference = (_errors(group, m.BY_ACTIVATIONS, *place) - _errors(group, m.OWN, *place)).dropna()
    return Found(where(group, *place), below(difference, group.tolerance)) if len(difference) else None


def closes_with_width(group: ResultGroup) -> Found | None:
    """Error of the permuted mask minus that of its own initialisation, at the widest minus at the narrowest."""
    rows = group.rows(m.WIDTH_ERROR)
    if rows.empty or (k := small_step(group, rows["rewind_step"].unique())) is None:
        return None
    rows = rows[(rows["rewind_step"] == k) & (rows["level"] > 0)]
    level, narrow, wide = int(rows["level"].max()), float(rows["x"].min()), float(rows["x"].max())

    def lost(factor: float) -> pd.Series:
        own, permuted = (
            group.values(m.WIDTH_ERROR, kind=kind, rewind_step=k, level=level, x=factor)
            for kind in (m.OWN, m.BY_ACTIVATIONS)
        )
        return permuted - own

    difference = (lost(wide) - lost(narrow)).dropna()
    if difference.empty or narrow == wide:
        return None
    beside = ", ".join(f"{lost(factor).mean():.3g} at {factor:g}" for factor in sorted(rows["x"].unique()))
    return Found(f"{where(group, k, level)}, widths {narrow:g} and {wide:g}", below(difference, 0.0), f"({beside})")


def _barrier(group: ResultGroup) -> Measure:
    return m.RECOMPUTED_BETWEEN if len(group.rows(m.RECOMPUTED_BETWEEN)) else m.BETWEEN


def lowers_barrier(group: ResultGroup) -> Found | None:
    """Barrier between both initialisations' tickets as they are minus that modulo permutation, above 0."""
    measure = _barrier(group)
    if (place := small_place(group, measure, m.BY_ACTIVATIONS)) is None:
        return None
    k, level = place
    naive, permuted = (
        group.values(measure, kind=kind, rewind_step=k, level=level) for kind in (m.NAIVE, m.BY_ACTIVATIONS)
    )
    difference = (naive - permuted).dropna()
    return Found(where(group, *place), above(difference, 0.0)) if len(difference) else None


def connected_modulo_permutation(group: ResultGroup) -> Found | None:
    """Barrier between both initialisations' tickets modulo permutation, below twice the tolerance."""
    measure = _barrier(group)
    if (place := small_place(group, measure, m.BY_ACTIVATIONS)) is None:
        return None
    k, level = place
    values = group.values(measure, kind=m.BY_ACTIVATIONS, rewind_step=k, level=level)
    dense = group.values(measure, kind=m.BY_ACTIVATIONS, rewind_step=k, level=0)
    note = f"(dense networks: {dense.mean():.3g})" if len(dense) else ""
    return Found(where(group, *place), below(values, 2 * group.tolerance), note)


_PAPER, _SHARMA = "2505.05143", "Sharma et al., 2024"
_K = f"k the first from {SMALL:.0%} of training"
_ROWS: tuple[ClaimRow, ...] = (
    (
        "A mask that is permuted to another initialisation is better there than the mask as it is.", _PAPER,
        f"error under the mask as it is minus error under the permuted mask, above 0; {_K}",
        "91.85 against 94.44 % accuracy at 97 % sparsity", "transplant", better_than_naive,
    ),
    (
        "A permuted mask is as good as the mask on its own initialisation.", _PAPER,
        f"error under the permuted mask minus error on the own initialisation, below the tolerance; {_K}",
        "94.44 against 94.94 % accuracy at 97 % sparsity", "transplant", as_good_as_own,
    ),
    (
        "What is lost by permuting a mask falls with the network's width.", _PAPER,
        "error under the permuted mask minus error on the own initialisation, at the widest network minus at the "
        f"narrowest, below 0; {_K}",
        "the gap closes with width", "widths", closes_with_width,
    ),
    (
        "Tickets of two initialisations are nearer to connected modulo permutation.", _SHARMA,
        f"barrier as they are minus barrier modulo permutation, statistics re-estimated, above 0; {_K}",
        "–", "barriers", lowers_barrier,
    ),
    (
        "Tickets of two initialisations are connected modulo the permutation of their dense networks.", _SHARMA,
        f"barrier modulo permutation, statistics re-estimated, below twice the tolerance; {_K}",
        "–", "barriers", connected_modulo_permutation,
    ),
)  # fmt: skip
CLAIMS = numbered("lotto run permuted.{} resnet20-mnist1d --levels 8 --rewind-to 100it", _ROWS)
