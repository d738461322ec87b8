"""Claims: the rule that decides, each claim's statistic on rows made by hand, the command."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotto import papers
from lotto.cli.main import main
from lotto.core.errors import UsageError
from lotto.core.statistics import Verdict, decide, interval
from lotto.experiments.claims import Finding, as_frame, check_claims
from lotto.experiments.results import ResultGroup, grouped, read_below
from lotto.papers.stabilizing.claims import CLAIMS, level_at
from lotto.papers.stabilizing.measures import TEST_BARRIER

BARRIER = TEST_BARRIER.name
S, C, U = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED


def test_interval_is_students():
    # Student's t of 2 degrees of freedom at 97.5 % is 4.302652729911275.
    values = [1.0, 2.0, 4.0]
    half = 4.302652729911275 * np.std(values, ddof=1) / math.sqrt(3)
    assert interval(values) == pytest.approx((7 / 3 - half, 7 / 3 + half), rel=1e-9)
    assert interval([1.0]) == (-math.inf, math.inf)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.floats(-5, 5))
def test_decide_is_antisymmetric_and_needs_replicates(values, threshold):
    below, above = decide(values, threshold, True), decide(values, threshold, False)
    assert {below, above} in ({U}, {S, C})
    if len(values) == 1:
        assert below is U


def test_decide():
    assert decide([0.1, 0.11, 0.09], 0.2, below=True) is S
    assert decide([0.3, 0.31, 0.29], 0.2, below=True) is C
    assert decide([0.1, 0.3, 0.2], 0.2, below=True) is U


COLUMNS = ["replicate", "seed", "rewind_step", "level", "density", "kind", "measure", "unit", "sample", "value"]


def rows(kind, k, level, density, values, measure="error", unit="points"):
    return [(r, r, k, level, density, kind, measure, unit, 0, v) for r, v in enumerate(values)]


def setting(lines, model="resnet-20", lr=0.1, warmup=0, iterations=1000):
    recipe = {"name": "some", "model": model}
    facts = {"iterations": iterations, "per_epoch": 100, "learning_rate": lr, "warmup": warmup}
    return ResultGroup(recipe, facts, pd.DataFrame([row for part in lines for row in part], columns=COLUMNS))


def verdict(number, *given):
    (decision,) = check_claims([c for c in CLAIMS if c.number == number], given)
    return decision.verdict


DENSE = rows("dense", 0, 0, 1.0, (10.0, 10.1, 9.9))
GOOD, BAD = (10.0, 10.12, 9.9), (12.0, 12.1, 11.9)


@pytest.mark.parametrize(
    ("number", "model", "lr", "errors", "expected"),
    [
        (1, "lenet-300-100", 0.1, GOOD, S),
        (1, "lenet-300-100", 0.1, BAD, C),
        (1, "resnet-20", 0.1, GOOD, U),
        (2, "resnet-20", 0.1, BAD, S),
        (2, "resnet-20", 0.1, GOOD, C),
        (2, "resnet-20", 0.01, GOOD, U),
        (3, "resnet-20", 0.01, GOOD, S),
        (3, "resnet-20", 0.01, BAD, C),
    ],
)
def test_winning_from_the_start(number, model, lr, errors, expected):
    imp = rows("imp", 0, 8, 0.13, errors)
    assert verdict(number, setting([DENSE, imp], model, lr)) is expected
    assert verdict(number, setting([DENSE, rows("imp", 0, 8, 0.5, errors)], model, lr)) is U, "another density"


def test_small_rewind():
    lines = [DENSE, rows("imp", 0, 8, 0.17, BAD), rows("imp", 50, 8, 0.17, GOOD), rows("imp", 900, 8, 0.17, BAD)]
    assert verdict(4, setting(lines)) is S
    assert verdict(4, setting([*lines[:2], rows("imp", 500, 8, 0.17, GOOD)])) is U, "half the training is not small"
    assert verdict(8, setting(lines)) is S


def distances(k, level, values, kind="imp"):
    return rows(kind, k, level, 0.17, values, "data order", "L2") + rows(kind, k, level, 0.17, values, "pruning", "L2")


def test_distances():
    errors = [DENSE, rows("imp", 0, 8, 0.17, BAD), rows("imp", 50, 8, 0.17, GOOD)]
    closer = [distances(0, 8, (20.0, 21.0, 22.0)), distances(50, 8, (10.0, 11.0, 12.0))]
    random = [distances(0, 8, (20.0, 21.0, 22.0), "random"), distances(50, 8, (20.0, 21.0, 22.0), "random")]
    assert verdict(5, setting([*errors, *closer])) is S
    assert verdict(5, setting([*errors, *closer[:1]])) is U
    one = setting([*errors, *closer, *random])
    assert verdict(6, one) is S, "where it does not match, at k = 0, the ratio of 1 does not count"
    (decision,) = check_claims([c for c in CLAIMS if c.number == 6], [one])
    assert [f.where for f in decision.findings] == ["some, resnet-20, 1000 iterations, 17 % left, k = 50"]
    assert decision.findings[0].values == pytest.approx((2.0, 21 / 11, 22 / 12))


def test_matching_exactly_when_stable():
    stable, unstable = (0.1, 0.2, 0.1), (9.0, 9.5, 9.1)
    lines = [
        DENSE,
        rows("imp", 50, 8, 0.17, GOOD),
        rows("imp", 50, 8, 0.17, stable, BARRIER),
        rows("random", 50, 8, 0.17, BAD),
        rows("random", 50, 8, 0.17, unstable, BARRIER),
    ]
    assert verdict(7, setting(lines)) is S
    assert verdict(7, setting(lines[:3])) is U
    assert verdict(7, setting([*lines[:2], rows("imp", 50, 8, 0.17, unstable, BARRIER)])) is C


def test_dense_instability():
    at = [rows("dense", k, 0, 1.0, v, BARRIER) for k, v in ((0, (9.0, 9.5, 9.1)), (200, (0.1, 0.2, 0.1)))]
    assert verdict(10, setting(at)) is S
    assert verdict(10, setting([at[0], [(r, s, 200, *rest) for r, s, _, *rest in at[0]]])) is C
    assert verdict(10, setting(at[:1])) is U
    assert verdict(9, setting(at, "lenet-300-100")) is C
    assert verdict(9, setting([[(r, s, 0, *rest) for r, s, _, *rest in at[1]]], "lenet-300-100")) is S


def test_controls_one_shot_and_finetuning():
    lenet = [DENSE, rows("imp", 0, 9, 0.11, GOOD), rows("random", 0, 9, 0.11, BAD), rows("reinit", 0, 9, 0.11, BAD)]
    assert verdict(11, setting(lenet, "lenet-300-100")) is S
    assert verdict(11, setting([*lenet[:3], rows("reinit", 0, 9, 0.11, GOOD)], "lenet-300-100")) is U
    once = [DENSE, rows("one-shot", 5, 9, 0.1, BAD), rows("iterative", 5, 9, 0.1, GOOD)]
    assert verdict(12, setting(once)) is S
    ways = [rows(k, 5, 9, 0.1, GOOD) for k in ("weight rewinding", "lr rewinding")]
    same = rows("fine-tuning", 5, 9, 0.1, GOOD)
    assert verdict(13, setting([DENSE, *ways, same])) is U, "with a constant rate they are one thing"
    assert verdict(13, setting([DENSE, *ways, rows("fine-tuning", 5, 9, 0.1, BAD)])) is S
    assert verdict(13, setting([DENSE, *ways, rows("fine-tuning", 5, 9, 0.1, (9.0, 9.1, 8.9))])) is C


def test_nothing_stored_decides_nothing():
    frame = as_frame(check_claims(CLAIMS, []))
    assert set(frame["finding"]) == {U.value}
    assert frame["ours"].str.contains("lotto run stabilizing.").all()
    assert list(frame["claim"]) == list(range(1, len(CLAIMS) + 1))


def test_settings_that_disagree_decide_nothing():
    imp = [setting([DENSE, rows("imp", 0, 8, 0.13, e)], "lenet-300-100") for e in (GOOD, BAD)]
    assert verdict(1, *imp) is U
    assert verdict(1, imp[0], setting([DENSE], "lenet-300-100")) is S


def test_level_near_a_density():
    lines = [rows("imp", 0, 4, 0.41, GOOD), rows("imp", 0, 8, 0.168, GOOD), rows("imp", 0, 12, 0.069, GOOD)]
    assert level_at(setting(lines), 0.167) == 8
    assert level_at(setting(lines), 0.9) is None
    assert level_at(setting([DENSE]), 0.167) is None


def test_figures_show_spread():
    assert Finding("", (1.0, 2.0, 3.0), U).figure == "2 ± 1 (n = 3, 95 % interval -0.484 to 4.48)"
    assert Finding("", (1.5,), U).figure == "1.5 (n = 1, no spread)"


def un(number, lines, **about):
    """The verdict of the second paper's claim on rows with the column x."""
    frame = pd.DataFrame([row for part in lines for row in part], columns=[*COLUMNS, "x"])
    made = setting([DENSE], **about)
    given = ResultGroup(made.recipe | {"tolerance": 0.2}, made.facts, pd.concat([made.frame, frame], ignore_index=True))
    (decision,) = check_claims([c for c in papers.claims_of("unmasking") if c.number == number], [given])
    return decision.verdict


def at_x(x, lines):
    return [(*row, x) for row in lines]


NAN = float("nan")
SMALL, LARGE = (0.1, 0.0, 0.05), (20.0, 21.0, 22.0)


def test_connected_exactly_where_matching():
    def level(number, density, errors, barrier):
        return [
            at_x(NAN, rows("imp", 0, number + 1, density, errors)),
            at_x(number + 1, rows("imp", 0, number, density, barrier, "barrier")),
        ]

    both = [*level(5, 0.3, GOOD, SMALL), *level(9, 0.1, BAD, LARGE)]
    assert un(1, both) is S
    assert un(1, both[:2]) is U, "both kinds are needed"
    assert un(1, [*both, *level(7, 0.2, GOOD, LARGE)]) is C
    assert un(1, [*both, *level(0, 1.0, GOOD, LARGE)]) is S, "the first levels do not count"
    assert un(1, [*both, at_x(9, rows("imp", 0, 5, 0.3, LARGE, "barrier"))]) is S, "nor do distant ones"


def test_distant_levels():
    chain = [at_x(i + 1, rows("imp", 0, i, 1.0, SMALL, "barrier")) for i in range(3)]
    between = at_x(1, rows("imp", 0, 0, 1.0, SMALL, "error between"))
    assert un(2, [*chain, between, at_x(3, rows("imp", 0, 0, 1.0, LARGE, "barrier"))]) is S
    assert un(2, [*chain, between, at_x(3, rows("imp", 0, 0, 1.0, SMALL, "barrier"))]) is U
    assert un(2, [*chain[:1], between]) is U, "a chain has more than one step"


def test_robust_exactly_where_matching():
    def point(k, errors, barrier, level=8):
        return [
            at_x(NAN, rows("imp", k, level, 0.2, errors)),
            at_x(1.0, rows("perturbed", k, level, 0.2, errors, "error after training")),
            at_x(1.0, rows("perturbed", k, level, 0.2, barrier, "barrier")),
        ]

    assert un(3, [*point(0, BAD, LARGE), *point(100, GOOD, SMALL)]) is S
    assert un(3, [*point(0, GOOD, SMALL, 8), *point(0, BAD, LARGE, 12)]) is S, "every level counts"
    assert un(3, [*point(0, BAD, SMALL, 8), *point(0, GOOD, SMALL, 12)]) is C
    assert un(3, [*point(0, BAD, SMALL), *point(100, GOOD, SMALL)]) is C


def test_shares():
    def share(kind, how, found, level=4):
        return at_x(NAN, rows(kind, 0, level, 0.4, found, f"largest share, {how}", "share"))

    random = [share("random", "theory", (0.3, 0.31, 0.29)), share("random", "subspace", (0.25, 0.26, 0.27))]
    assert un(4, random) is S
    assert un(4, [random[0], share("random", "subspace", (0.05, 0.051, 0.049))]) is C
    assert un(5, [*random, share("magnitude", "subspace", (0.5, 0.52, 0.51))]) is S
    assert un(5, [*random, share("magnitude", "subspace", (0.1, 0.11, 0.1))]) is C
    levels = [share("random", "subspace", (v, v + 0.01, v), level) for level, v in ((0, 0.5), (4, 0.3), (8, 0.1))]
    sharp = [at_x(NAN, rows("imp", 0, level, 0.4, (v, v, v), "trace", "nats")) for level, v in ((0, 1), (4, 2), (8, 9))]
    assert un(6, [*levels, *sharp]) is S
    assert un(6, [*levels, *[at_x(NAN, [(*r[:-2], -r[-2]) for r in part]) for part in sharp]]) is C


def test_retraining_and_one_shot():
    def length(kind, found):
        return at_x(NAN, rows(kind, 0, 3, 0.5, found, "projection length", "L2"))

    assert un(7, [length("imp", (1.0, 1.1, 1.0)), length("without retraining", (2.0, 2.1, 2.0))]) is S
    assert un(7, [length("imp", (3.0, 3.1, 3.0)), length("without retraining", (2.0, 2.1, 2.0))]) is C
    imp = at_x(NAN, rows("imp", 0, 8, 0.1, GOOD))
    assert un(8, [imp, at_x(NAN, rows("one-shot", 0, 8, 0.1, BAD))]) is S
    assert un(8, [imp, at_x(NAN, rows("one-shot", 0, 8, 0.1, (9.0, 9.1, 8.9)))]) is C


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two real experiments of one recipe and one of another."""
    folder = tmp_path_factory.mktemp("results")
    small = ["mlp-mnist1d", "--steps", "30it", "--levels", "2", "--replicates", "2", "--points", "3", "--jobs", "1"]
    for name, where, more in (
        ("distances", "a", ["--rewind-to", "0it,5it"]),
        ("oneshot", "b", ["--rewind-to", "0it"]),
        ("retraining", "c", ["--set", "optimizer.lr=0.2"]),
    ):
        main(["run", f"stabilizing.{name}", *small, *more, "--out", str(folder / where)])
    return folder


def test_equal_settings_come_together(results):
    stored = read_below(results)
    assert {s.about["name"] for s in stored} == {"distances", "oneshot", "retraining"}
    found = grouped(stored)
    assert sorted(len(s.frame["kind"].unique()) for s in found) == [3, 5]
    both = max(found, key=lambda s: len(s.frame["kind"].unique()))
    errors = both.frame[(both.frame["kind"] == "dense") & (both.frame["measure"] == "error")]
    assert not errors.duplicated([c for c in errors.columns if c != "value"]).any()
    assert both.facts == {"iterations": 30, "per_epoch": 40, "learning_rate": 0.1, "warmup": 0}


def test_command(results, capsys):
    main(["claims", "stabilizing", str(results)])
    shown = capsys.readouterr().out
    assert "Iterative pruning finds better subnetworks" in shown
    assert f"{len(CLAIMS)} not decided" in shown or "supported" in shown
    frame = pd.read_csv(results / "claims.csv")
    assert set(frame["claim"]) == {c.number for c in CLAIMS}
    assert frame[frame["claim"] == 12]["where"].str.contains("mlp-mnist1d").all()


def test_bad_input(results, tmp_path, capsys):
    with pytest.raises(UsageError, match="Unknown paper"):
        papers.claims_of("stabilising")
    with pytest.raises(SystemExit) as caught:
        main(["claims", "stabilizing", str(tmp_path / "absent")])
    assert caught.value.code == 2
    assert "There is no folder" in capsys.readouterr().err.replace("\n", " ")
    (tmp_path / "x.json").write_text(json.dumps({"format": "lotto.experiment"}))
    with pytest.raises(UsageError, match="cannot be read"):
        read_below(tmp_path)
