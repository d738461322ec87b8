"""All cases one after another, each written down as soon as it is measured."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from rich.console import Console

from lotto.benchmarks.gpu.cases import Case, cases_on
from lotto.benchmarks.gpu.clock import release
from lotto.benchmarks.gpu.networks import TINY, Sizes
from lotto.benchmarks.gpu.record import Record, machine_of
from lotto.benchmarks.gpu.tables import markdown, tables
from lotto.core import files
from lotto.core.errors import LottoError, UsageError, WorkerError
from lotto.core.rng import private_rng


def run_gpu_benchmarks(console: Console, out: Path, device: str = "cuda", sizes: Sizes | None = None) -> Record:
    """Measure what is not measured yet, print tables, and write them beside the record as Markdown.

    Args:
        console: where the tables go.
        out: the record, a JSON file.
        device: ``cuda``, ``cuda:1``; on ``cpu`` all of it runs with tiny sizes, which measures nothing.
        sizes: how much; default: what fits into ten minutes on a card.

    Raises:
        UsageError: if there is no such card, or the record is of another machine.
        WorkerError: if a case has left the card unusable for this process.
    """
    check_card(device)
    sizes = sizes or (TINY if torch.device(device).type == "cpu" else Sizes())
    if out.suffix != ".json":
        raise UsageError(f"The record of lotto bench gpu is a JSON file: --out card.json; got {out}.")
    record, cases = Record(out, machine_of(device, sizes)), cases_on(device, sizes)
    left = [case for case in cases if not record.is_done(case.name)]
    try:
        for number, case in enumerate(left, 1):
            with console.status(f"measuring {case.name}, {number} of {len(left)}"):
                measure_case(case, record, device)
    finally:  # also of a part, when somebody or the clock stops it
        files.write_text(out.with_suffix(".md"), markdown(cases, record))
    for table in tables(cases, record):
        console.print(table)
    return record


def check_card(device: str) -> None:
    """Raise ``UsageError`` unless there is such a card, or it is the processor."""
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"A device is cuda, cuda:1 or cpu; got {device!r}.") from error
    if chosen.type == "cpu":
        return
    if chosen.type != "cuda" or not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"lotto bench gpu measures a CUDA card, and torch {torch.__version__} sees no {device!r} here; "
            "--device cpu shows that all of it runs, with tiny sizes."
        )


def measure_case(case: Case, record: Record, device: str) -> None:
    """Measure a case and write it down; what torch or lotto refuses is written as a sentence, too."""
    record.begin(case.name)
    if record.is_done(case.name):  # it has ended the process too often
        return
    began = time.perf_counter()
    try:
        with private_rng():
            rows = case.measure()
    except KeyboardInterrupt:
        record.forget(case.name)
        raise
    except (RuntimeError, LottoError) as error:
        record.fail(case.name, (str(error).splitlines() or [type(error).__name__])[0])
        if isinstance(error, torch.AcceleratorError):
            raise WorkerError(
                f"{case.name} has left the card unusable for this process ({str(error).splitlines()[0]}). "
                "The same command goes on with what is left."
            ) from error
        return
    finally:
        release(device)
    record.end(case.name, rows, time.perf_counter() - began)
