"""*Missing the Mark*: rows against `imp`, claims on rows made by hand, figure, command line."""

from __future__ import annotations

import pandas as pd
import pytest

import lotto
from conftest import small_recipe
from lotto import papers
from lotto.cli.main import main
from lotto.core.errors import UsageError
from lotto.core.statistics import Verdict
from lotto.execution.serial import Serial
from lotto.experiments.claims import check_claims
from lotto.experiments.experiment import summary
from lotto.experiments.measures import LAST_QUARTER
from lotto.experiments.results import ResultGroup
from lotto.papers.missing_the_mark.claims import CLAIMS
from lotto.papers.missing_the_mark.measures import BEFORE, FRESH, METHODS, OWN, SHUFFLED

ABLATIONS = papers.get("missing_the_mark.ablations")
DENSITIES = (0.5, 0.2)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An engine, and the rows of the experiment at two rewind steps."""
    engine = Serial(lotto.Store(tmp_path_factory.mktemp("missing")))
    given = {"replicates": 2, "densities": DENSITIES, "rewind_to": ("0it", "5it"), "seed": 3}
    return engine, ABLATIONS.run(ABLATIONS.options(small_recipe(), given), engine)


def value(frame, kind, k, level, replicate):
    at = (frame["rewind_step"] == k) & (frame["level"] == level) & (frame["replicate"] == replicate)
    (found,) = frame[at & (frame["kind"] == kind) & (frame["measure"] == "error")]["value"]
    return found


@pytest.mark.parametrize("k", [0, 5])
@pytest.mark.parametrize("name", [*METHODS])
def test_rows_are_the_errors_of_imp_and_its_controls(home, name, k):
    engine, frame = home
    chosen = METHODS[name]
    given = {
        "replicates": 2, "seed": 3, "rewind_to": k, "engine": engine, "allocation": "global",
        "prune_at": "rewind" if chosen.before else "end", "controls": ("reinit", "random"), **chosen.options,
    }  # fmt: skip
    if not chosen.ablated:
        given["controls"] = ()
    one_by_one = not (chosen.before or chosen.iterative)
    together = lotto.imp(small_recipe(), densities=DENSITIES, **given)
    for number, density in enumerate(DENSITIES, 1):
        result = lotto.imp(small_recipe(), densities=[density], **given) if one_by_one else together
        for replicate, levels in enumerate(result.replicates):
            at = levels[1 if one_by_one else number]
            assert value(frame, OWN[name], k, number, replicate) == at.run.test_error
            assert value(frame, "dense", k, 0, replicate) == levels[0].run.test_error
            for kinds, control in ((SHUFFLED, "random"), (FRESH, "reinit")):
                if chosen.ablated:
                    assert value(frame, kinds[name], k, number, replicate) == at.controls[control].test_error
    assert set(frame[frame["level"] == 2]["density"].round(2)) == {0.2}


def test_methods_may_be_chosen_and_unknown_ones_are_named(home):
    engine, frame = home
    given = {"replicates": 2, "densities": DENSITIES, "rewind_to": ("5it",), "seed": 3, "methods": ("imp", "snip")}
    some = ABLATIONS.run(ABLATIONS.options(small_recipe(), given), engine)
    kinds = {"dense", *(kinds[n] for n in ("imp", "snip") for kinds in (OWN, SHUFFLED, FRESH))}
    assert set(some["kind"]) == kinds
    assert all(value(some, kind, 5, 2, 1) == value(frame, kind, 5, 2, 1) for kind in kinds - {"dense"})
    wrong = ABLATIONS.options(small_recipe(), {"replicates": 1, "methods": ("snap",)})
    with pytest.raises(UsageError, match=r"Unknown method 'snap'.*Choices: grasp, imp"):
        ABLATIONS.run(wrong, engine)


def test_the_figure_has_a_panel_for_each_method(home):
    _, frame = home
    made = ABLATIONS.plot(summary(frame), 0.2)
    assert [axis.get_title() for axis in made.axes] == [method.title for method in METHODS.values()]
    assert all(axis.has_data() for axis in made.axes)
    compared = {axis.get_ylim() for axis, method in zip(made.axes, METHODS.values(), strict=True) if method.ablated}
    assert len(compared) == 1
    lost = summary(frame.assign(value=frame["value"].where(frame["level"] == 0)))
    assert len(ABLATIONS.plot(lost, 0.2).axes) == len(METHODS)
    two = ABLATIONS.plot(summary(frame[frame["kind"].isin(["dense", OWN["snip"], OWN["imp"]])]), 0.2)
    assert len(two.axes) == 2


COLUMNS = ["replicate", "seed", "rewind_step", "level", "density", "kind", "measure", "unit", "sample", "value"]
NOISE = (0.0, 0.02, -0.02, 0.01, -0.01)


def rows(kind, value, k=0, level=4, density=0.05, measure="error"):
    return [(r, r, k, level, density, kind, measure, "points", 0, value + d) for r, d in enumerate(NOISE)]


def group(**errors):
    """A trained network whose masks err by ``errors``: by method, its own, shuffled and on a new initialisation."""
    lines = [
        *rows("dense", 1.0, level=0, density=1.0),
        *rows("dense", 0.0, level=0, density=1.0, measure=LAST_QUARTER.name),
    ]
    for name, values in errors.items():
        name, k = name.replace("_", "-"), 50 if name == "imp" else 0
        for kinds, error in zip((OWN, SHUFFLED, FRESH), values, strict=False):
            lines += rows(kinds[name], error, k)
    recipe = {
        "name": "some",
        "model": "resnet-20-w8",
        "data": "mnist1d-50k",
        "tolerance": 0.2,
        "optimizer": "SGD(lr=0.2)",
    }
    facts = {"iterations": 1000, "per_epoch": 100, "learning_rate": 0.2, "warmup": 0}
    return ResultGroup(recipe, facts, pd.DataFrame(lines, columns=COLUMNS).assign(copy=0))


def verdicts(given):
    return {d.claim.number: d.verdict for d in check_claims(CLAIMS, [given])}


AS_PUBLISHED = dict.fromkeys(BEFORE, (3.0, 2.9, 3.1)) | {"random_layer": (4.0,), "imp": (1.2, 3.0, 2.0)}
OPPOSITE = dict.fromkeys(BEFORE, (1.0, 2.9, 1.5)) | {"random_layer": (0.9,), "imp": (1.2, 1.0, 1.1)}


def test_rows_as_published_support_every_claim_and_the_opposite_contradicts_it():
    assert set(verdicts(group(**AS_PUBLISHED)).values()) == {Verdict.SUPPORTED}
    assert set(verdicts(group(**OPPOSITE)).values()) == {Verdict.CONTRADICTED}
    assert len(CLAIMS) == 4 * len(BEFORE) + 2


def test_rows_that_are_missing_or_at_another_density_or_few_decide_nothing():
    assert set(verdicts(group(snip=(3.0,))).values()) == {Verdict.UNDECIDED}
    given = group(**AS_PUBLISHED)
    others = ResultGroup(
        given.recipe,
        given.facts,
        given.frame.assign(density=given.frame["density"].where(given.frame["level"] == 0, 0.4)),
    )
    assert set(verdicts(others).values()) == {Verdict.UNDECIDED}
    one = ResultGroup(given.recipe, given.facts, given.frame[given.frame["seed"] == 0])
    assert set(verdicts(one).values()) == {Verdict.UNDECIDED}


def test_magnitude_after_training_is_that_of_a_small_rewind_step_where_one_is_stored():
    frame = group(**AS_PUBLISHED).frame
    at_0 = frame[frame["kind"].isin([kinds["imp"] for kinds in (OWN, SHUFFLED, FRESH)])].assign(rewind_step=0)
    made = group(**AS_PUBLISHED)
    both = ResultGroup(
        made.recipe, made.facts, pd.concat([frame, at_0.assign(value=at_0["value"] + 5.0)], ignore_index=True)
    )
    assert set(verdicts(both).values()) == {Verdict.SUPPORTED}
    (decision,) = check_claims([c for c in CLAIMS if c.number == 2], [both])
    assert "rewound to 50" in decision.findings[0].where
    without = ResultGroup(
        made.recipe, made.facts, pd.concat([frame[frame["rewind_step"] == 0], at_0], ignore_index=True)
    )
    (decision,) = check_claims([c for c in CLAIMS if c.number == 2], [without])
    assert "rewound to 0" in decision.findings[0].where


def test_the_commands_run_it_and_decide_its_claims(tmp_path, capsys):
    arguments = [
        "run", "missing_the_mark.ablations", "mlp-mnist1d", "--steps", "20it", "--replicates", "2", "--densities",
        "0.5,0.06", "--methods", "snip,random-layer,imp", "--jobs", "1", "--out", str(tmp_path / "out"),
        "--store", str(tmp_path / "store"), "--set", "model=mlp-24-16",
    ]  # fmt: skip
    main(arguments)
    assert "snip mask" in capsys.readouterr().out
    main(["claims", "missing_the_mark", str(tmp_path / "out")])
    table = pd.read_csv(tmp_path / "out" / "claims.csv")
    found = table[~table["ours"].str.startswith("no results")]
    snip = 1 + 4 * BEFORE.index("snip")
    assert list(found["claim"]) == [snip, snip + 1, snip + 2, snip + 3, 17, 18]
