"""The results in the repository are still read: measured by constants of ours, drawn, and decided as they were."""

from __future__ import annotations

import io
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest

from lotto import papers
from lotto.core.pytree import flatten
from lotto.experiments import measures as shared
from lotto.experiments.claims import as_frame
from lotto.experiments.experiment import COLUMNS, summary
from lotto.experiments.measures import Kind, Measure
from lotto.experiments.results import grouped, read, read_below
from lotto.report.experiments import readable

RESULTS = Path(__file__).parents[2] / "results"
FOLDERS = sorted({result.path.parent for result in read_below(RESULTS)})


def constants(*modules):
    """The measures and the kinds that modules declare, alone or in dicts and tuples."""
    measures, kinds = set(), set()
    for value in (value for module in modules for value in vars(module).values()):
        if isinstance(value, Measure):
            measures.add(value)
        elif isinstance(value, dict) and all(isinstance(v, Measure) for v in value.values()):
            measures |= set(value.values())
        else:
            kinds |= {leaf for leaf in flatten(value) if isinstance(leaf, Kind)}
    return measures, kinds


def test_there_are_results_of_all_papers():
    names = {f"{r.about['paper']}.{r.about['name']}" for r in read_below(RESULTS)}
    assert len(names) >= 12
    assert {name.partition(".")[0] for name in names} == set(papers.PAPERS)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(RESULTS)))
def test_stored_rows_are_measured_by_constants_and_can_be_drawn(folder):
    for result in read(folder):
        experiment = papers.get(f"{result.about['paper']}.{result.about['name']}")
        own = import_module(f"lotto.papers.{experiment.paper}.measures")
        measures, kinds = constants(shared, own)
        named = {measure[:2]: measure for measure in measures}
        found = {named[key] for key in zip(result.frame["measure"], result.frame["unit"], strict=True)}
        assert set(result.frame["kind"]) <= kinds
        assert list(result.frame) == [column for column in COLUMNS if column in result.frame]
        made = experiment.plot(summary(result.frame), float(result.about["recipe"]["tolerance"]))
        assert any(axis.has_data() for axis in made.axes)
        assert len(readable(result.frame))
        complete = result.complete
        for measure in found:  # older rows get the settings that rows have now
            rows = measure.of(complete)
            rows = rows[rows["kind"] != shared.WITHOUT_RETRAINING]
            for setting in set(shared.SETTINGS) - {"examples"}:
                assert rows[setting].notna().all() == (setting in measure.settings), (measure, setting)
            asked = result.about["options"].get("examples") or 0
            if measure == shared.LAST_QUARTER:  # of as many as its record is, which newer rows say
                assert all(rows["examples"].fillna(1000) >= 1000)
                continue
            assert set(rows["examples"].fillna(0)) == ({asked} if "examples" in measure.settings else {0}), measure


@pytest.mark.parametrize(("paper", "folder"), [(paper, RESULTS) for paper in papers.PAPERS])
def test_claims_are_decided_as_they_were(paper, folder):
    decisions = papers.check_claims(papers.claims_of(paper), grouped(read_below(folder)))
    now = pd.read_csv(io.StringIO(as_frame(decisions).to_csv(index=False)))
    pd.testing.assert_frame_equal(now, pd.read_csv(RESULTS / paper / "claims.csv"))
