"""How small can a network get, and is it quicker? One table over levels or densities: sizes, errors, times."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import nn

from lotto.core.check import Count, checked
from lotto.core.errors import UsageError, unknown
from lotto.core.rng import private_rng
from lotto.execution.events import Progress, StageAdvanced
from lotto.execution.progress import showing
from lotto.execution.store import Store
from lotto.execution.threads import limited_threads
from lotto.inference.all_forms import BFLOAT16, FORMS, USUAL, Forms, forms_of
from lotto.inference.candidates import Candidate, Found, candidates
from lotto.inference.checks import resized
from lotto.inference.timing import interleaved, simplest_quickest
from lotto.inference.variants import BATCHES, COMPACT, DENSE, SPARSE, calling, halved_inputs
from lotto.lottery.result import ImpResult, reporting
from lotto.recipe.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIMPLEST_FIRST = (*(form for form in FORMS if form != SPARSE), SPARSE)
Times = Mapping[tuple[int, str], Sequence[float]]
MAKING, TESTING = "Making the networks smaller", "Test errors"


@dataclass(frozen=True, eq=False)
class Sweep:
    """What `sweep` measured.

    Attributes:
        frame: see `table`.
        forms: names of the forms that have been measured.
        batches: sizes of the batches that were timed.
        name: of what was measured.
        about: where the networks come from and how errors are compared, in a sentence.
        error_title, error_unit: of the errors, see `lotto.Recipe`.
        missing: by form, why networks have none.
    """

    frame: pd.DataFrame
    forms: tuple[str, ...]
    batches: tuple[int, ...]
    name: str
    about: str
    error_title: str = ""
    error_unit: str = ""
    missing: Mapping[str, str] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """One row per level or density, from dense to sparse.

        Columns: ``level`` (of a result); ``density`` (of the prunable weights); ``parameter_fraction`` (of all
        parameters); ``parameters`` (left); ``compact_parameters`` (of the compact network, its zeros among them);
        ``error``, ``error_std``, ``n``, ``gap``, ``gap_low``, ``gap_high``, ``verdict`` (as of `ImpResult.table`; of
        networks pruned here ``gap`` is to the first row); ``error_bfloat16``; for each form ``FORM_bytes`` and, for
        each batch size N, ``FORM_ms_N``: the time of a batch in milliseconds; ``quickest_N``: the form of the
        least median, or a simpler one than which that was not quicker in more turns than chance allows (a sign test at
        5 %; the sparse form is the least simple).
        """
        return self.frame.copy()

    def table_as(self, form: str = "text") -> str:
        """The table as a text: ``text`` (80 columns), ``csv`` (all columns), ``markdown``, ``latex`` (booktabs)."""
        text: str = reporting("sweeps").as_text(self, form)
        return text

    @property
    def summary(self) -> str:
        """What came out, in sentences: how small, and at which densities the sparse network is the quickest, if any."""
        text: str = reporting("sweeps").summary(self)
        return text

    def plot(self) -> Figure:
        """A figure of matplotlib: error, bytes and times against density."""
        figure: Figure = reporting("sweeps").draw(self)
        return figure

    @checked
    def save(self, folder: str | Path) -> Path:
        """Write ``sweep.csv`` and ``sweep.svg`` into a folder; returns it."""
        reporting("sweeps").save(self, Path(folder))
        return Path(folder)

    def __repr__(self) -> str:
        return f"Sweep({self.name!r}: {len(self.frame)} densities, {', '.join(self.forms)}; {self.summary})"

    def __str__(self) -> str:
        return self.table_as()

    def _repr_html_(self) -> str:
        text: str = reporting("sweeps").as_html(self)
        return text


@checked
def sweep(
    source: ImpResult | Recipe | nn.Module | str | Path,
    data: Any = None,
    *,
    densities: Sequence[float] | None = None,
    levels: Sequence[int] | None = None,
    replicate: int | None = None,
    forms: Sequence[str] = USUAL,
    batches: Sequence[Count] = BATCHES,
    threads: Count = 1,
    store: Store | str | Path | None = None,
    progress: Progress | bool | None = None,
) -> Sweep:
    """Measure how small a network gets and how quick it is, level by level or density by density.

    Times are medians over interleaved turns, of the quickest call in each, on this machine's CPU, after a warm-up, and
    only of forms whose outputs have been compared with the dense network's. With one thread it is the processor's time,
    in which what other processes take has no part. The dense network multiplies all its
    zeros, so it is timed once. Where bfloat16 is quicker than float32 its test error is measured, too.

    Args:
        source: a result of `lotto.imp`, or the folder of one: the trained networks of its levels, their errors those
            of its table. A trained module: pruned by magnitude to each density and *not* trained again. A recipe:
            trained and pruned by `lotto.imp` with these densities and one replicate.
        data: for a module what it is tested on: a recipe (its test set, error and choice of what is pruned), a data
            source, ``(inputs, targets)``, or inputs alone (no errors). For a result whose model and data have no
            names: the recipe, or inputs.
        densities: of the prunable weights, falling; default 0.5, 0.2, 0.1, 0.05, 0.02. Not for a result.
        levels: of a result; default all.
        replicate: of a result, whose networks are timed; default the first whose training of the level ended.
        forms: of `lotto.inference.all_forms.FORMS`: ``dense``, ``compact``, ``sparse``, ``bfloat16``, and beside these
            ``onnx`` (by onnxruntime) and ``torchscript``, both of the compact network.
        batches: sizes of the batches that are timed.
        threads: of torch and onnxruntime; the sparse kernels use one.
        store: where a result's trained weights are remembered; default ``LOTTO_STORE``, or the user's cache.
        progress: called with `StageAdvanced`, and of a recipe with what `imp` says; False: nothing is shown.

    Returns:
        The measurements; ``print`` shows them.

    Raises:
        UsageError: before anything is measured, for whatever cannot be done.

    >>> network = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    >>> found = sweep(network, torch.ones(4, 8), densities=[0.5, 0.1], batches=[1])
    >>> found.table()["density"].round(2).tolist()
    [1.0, 0.5, 0.1]
    """
    wanted = _checked_forms(forms)
    if not batches:
        raise UsageError("batches is a list of one or more sizes, such as [1, 64]; got none.")
    place = store if isinstance(store, Store) else Store(store)
    found = candidates(source, data, densities, levels, replicate, place, progress)
    with showing(progress) as emit, private_rng():
        return _measured(found, wanted, tuple(dict.fromkeys(batches)), threads, emit)


def _checked_forms(forms: Sequence[str]) -> tuple[str, ...]:
    for form in forms:
        if form not in FORMS:
            raise unknown("form", form, FORMS)
    return tuple(form for form in FORMS if form == DENSE or form in forms)


def _measured(
    measured: Found,
    wanted: tuple[str, ...],
    batches: tuple[int, ...],
    threads: int,
    emit: Progress,
) -> Sweep:
    rows, examples = measured.rows, measured.examples
    inputs = examples.inputs(max(batches))
    made: list[Forms] = []
    with limited_threads(threads):
        for number, row in enumerate(rows):
            emit(StageAdvanced(MAKING, number, len(rows)))
            made.append(forms_of(row.module, inputs, wanted, batches, threads))
        times = {batch: _times(made, resized(inputs, batch), batch, emit) for batch in batches}
        found = [
            _columns(row, forms, number, times) for number, (row, forms) in enumerate(zip(rows, made, strict=True))
        ]
        for number, (row, forms) in enumerate(zip(rows, made, strict=True)):
            emit(StageAdvanced(TESTING, number, len(rows)))
            if row.untested:
                found[number]["error"] = examples.error(row.module)
            if _quickest_in_bfloat16(found[number], batches):
                found[number][f"error_{BFLOAT16}"] = examples.error(forms.modules[BFLOAT16], halved_inputs)
    frame = pd.DataFrame(found)
    if rows[0].untested:
        frame["gap"] = frame["error"] - frame["error"].iloc[0]
    shown = tuple(form for form in wanted if f"{form}_bytes" in frame)
    missing = {form: why for forms in reversed(made) for form, why in forms.missing.items()}
    titles = (measured.name, measured.about, measured.error_title, measured.error_unit)
    return Sweep(frame, shown, batches, *titles, missing)


def _times(made: Sequence[Forms], inputs: Any, batch: int, emit: Progress) -> Times:
    """Milliseconds in every turn by row and form; the dense network is timed once."""
    low = halved_inputs(inputs)
    calls = {
        (number, form): calling(module, low if form == BFLOAT16 else inputs)
        for number, forms in enumerate(made)
        for form, module in forms.modules.items()
        if form != DENSE or not number
    }
    stage = f"Timing batches of {batch}"
    emit(StageAdvanced(stage, 0, 1))
    with torch.no_grad():
        seconds = interleaved(
            calls, torch.get_num_threads(), lambda done, total: emit(StageAdvanced(stage, done, total))
        )
    return {key: [1000 * taken for taken in turns] for key, turns in seconds.items()}


def _columns(row: Candidate, forms: Forms, number: int, times: Mapping[int, Times]) -> dict[str, Any]:
    found = dict(row.columns)
    if COMPACT in forms.modules:
        found["compact_parameters"] = sum(p.numel() for p in forms.modules[COMPACT].parameters())
    found |= {f"{form}_bytes": size for form, size in forms.bytes.items()}
    for batch, taken in times.items():
        own = {form: taken[0 if form == DENSE else number, form] for form in SIMPLEST_FIRST if form in forms.modules}
        found |= {f"{form}_ms_{batch}": statistics.median(turns) for form, turns in own.items()}
        found[f"quickest_{batch}"] = simplest_quickest(own)
    return found


def _quickest_in_bfloat16(columns: Mapping[str, Any], batches: Sequence[int]) -> bool:
    """Whether bfloat16 is quicker than float32 of the same network for any batch, so that its error matters."""
    base = COMPACT if f"{COMPACT}_bytes" in columns else DENSE
    return any(
        columns[f"{BFLOAT16}_ms_{batch}"] < columns[f"{base}_ms_{batch}"]
        for batch in batches
        if f"{BFLOAT16}_ms_{batch}" in columns
    )
