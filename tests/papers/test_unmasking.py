"""Experiments of the second paper: rows against the same things computed by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch

import lotto
from conftest import small_recipe
from lotto import papers
from lotto.cli.main import main
from lotto.core.errors import UsageError
from lotto.core.rng import derived_seed
from lotto.execution.serial import Serial
from lotto.experiments.experiment import summary
from lotto.landscape import subspace
from lotto.landscape.curvature import convergence
from lotto.landscape.curvature.quadratic import QuadraticTask
from lotto.papers.unmasking import experiments, flatness, pruning_limit
from lotto.pruning import masks
from lotto.report import plots
from lotto.report.experiments import readable, save_experiment, write_experiments


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An engine, the options, and the levels that all experiments share."""
    return at_home(Serial(lotto.Store(tmp_path_factory.mktemp("unmasking"))), small_recipe())


def at_home(engine, recipe):
    options = papers.Options(recipe, replicates=1, levels=3, points=5, rewind_to=("5it",))
    result = lotto.imp(recipe, levels=3, rewind_to="5it", replicates=1, controls=(), engine=engine)
    return engine, options, result.replicates[0]


@pytest.fixture(autouse=True)
def _few_products(monkeypatch):
    """Two probes of 48 steps, which are too few for some fractions; tests of the theory take more."""
    monkeypatch.setattr(convergence, "PROBED", 1)
    monkeypatch.setattr(convergence, "EXACT", 0)
    monkeypatch.setattr(pruning_limit, "STEPS", 48)


def run(name, home):
    return papers.get(f"unmasking.{name}").run(home[1], home[0])


def only(frame, **about):
    for column, value in about.items():
        frame = frame[
            frame[column].isna() if isinstance(value, float) and math.isnan(value) else frame[column] == value
        ]
    assert len(frame) == 1, about
    return frame["value"].iloc[0]


def test_connectivity(home):
    frame, (_, options, levels) = run("connectivity", home), home
    for at in levels:
        assert only(frame, level=at.level, measure="error") == at.run.test_error
    for a in levels:
        for b in levels[a.level + 1 :]:
            path = lotto.landscape.evaluate_path(options.recipe, a.run.weights, b.run.weights, 5)
            assert only(frame, level=a.level, kind="imp", measure="barrier", x=b.level) == path.barrier("line")
            assert only(frame, level=a.level, measure="error between", x=b.level) == path.error["test"][2]
    assert not frame["measure"].str.contains("recomputed").any(), "no BatchNorm in this model"


def test_nested_random_masks_are_a_control_of_connectivity(home):
    frame, (engine, options, levels) = run("connectivity", home), home
    start, before, ends = levels[0].run.state(5).without_optimizer, levels[0].mask, [levels[0].run.weights]
    for at in levels[1:]:
        mask = masks.random_like(at.mask, derived_seed(0, "random-chain", at.level), before)
        for name, keep in mask.items():
            assert int(keep.sum()) == int(at.mask[name].sum()), "the layer densities of IMP"
            assert not (keep & ~before[name]).any(), "each within the one before"
        before = mask
        trained = lotto.train(options.recipe, start=start, mask=mask, order_seed=0, from_step=5, engine=engine)
        place = {"kind": "random", "level": at.level}
        assert only(frame, **place, measure="error of nested random masks") == trained.test_error
        ends.append(trained.weights)
    for i, (a, b) in enumerate(pairwise(ends)):
        barrier = lotto.landscape.barrier(options.recipe, a, b, 5, baseline="line")
        assert only(frame, kind="random", level=i, measure="barrier") == barrier
    assert len(frame[frame["kind"] == "random"]) == 6
    without = papers.Options(options.recipe, 1, ("5it",), 3, points=5, random_chain=False)
    assert set(papers.get("unmasking.connectivity").run(without, engine)["kind"]) == {"imp"}


def test_distant_levels_are_compared_at_fewer_positions(home):
    engine, options, levels = home
    asked = papers.Options(options.recipe, 1, ("5it",), 3, points=9, random_chain=False)
    frame = papers.get("unmasking.connectivity").run(asked, engine)
    barriers = frame[frame["measure"] == "barrier"]
    assert set(barriers[barriers["x"] == barriers["level"] + 1]["points"]) == {9}
    assert set(barriers[barriers["x"] > barriers["level"] + 1]["points"]) == {5}
    path = lotto.landscape.evaluate_path(options.recipe, levels[0].run.weights, levels[3].run.weights, 5)
    assert path.alphas == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert only(barriers, level=0, x=3) == path.barrier("line")
    assert only(frame, measure="error between", level=0, x=3) == path.error["test"][2], "at the midpoint"


def test_projection(home):
    frame, (_, options, levels) = run("projection", home), home
    recipe, start = options.recipe, levels[0].run.at(5)
    for here, after in pairwise(levels):
        projected = masks.apply(here.run.weights, after.mask)
        first = masks.apply(start, after.mask)
        place = {"level": here.level}
        assert only(frame, **place, measure="projection error") == lotto.evaluate(recipe, projected).error
        assert only(frame, **place, measure="next initialisation error") == lotto.evaluate(recipe, first).error
        expected = lotto.weights.distance(here.run.weights, projected)
        assert only(frame, **place, measure="projection length") == pytest.approx(expected, rel=1e-6)
        barrier = lotto.landscape.barrier(recipe, projected, after.run.weights, 5, baseline="line")
        assert only(frame, **place, measure="barrier from the projection") == barrier
    plane = frame[(frame["measure"] == "plane") & (frame["level"] == 2)]
    assert len(plane) == 15 * 15
    corners = frame[(frame["measure"] == "plane corner") & (frame["level"] == 2)]
    assert list(corners["kind"]) == ["solution", "projection", "next solution"]
    length = only(frame, level=2, measure="projection length")
    assert corners["x"].iloc[1] == pytest.approx(length, rel=1e-5), "the projection lies at its distance"


def test_robustness(home):
    frame, (engine, options, levels) = run("robustness", home), home
    recipe, last = options.recipe, levels[-1]
    rewound = levels[0].run.at(5)
    length = lotto.weights.distance(*(masks.apply(rewound, at.mask) for at in levels[-2:]))
    assert only(frame, measure="distance of successive rewind points") == pytest.approx(length, rel=1e-6)
    moved = subspace.perturb(rewound, last.mask, 2 * length, derived_seed(0, "perturbation", 2))
    trained = lotto.train(recipe, start=moved, mask=last.mask, order_seed=0, from_step=5, engine=engine)
    assert only(frame, kind="perturbed", x=2.0, measure="error after training") == trained.test_error
    barrier = lotto.landscape.barrier(recipe, last.run.weights, trained.weights, 5)
    assert only(frame, kind="perturbed", x=2.0, measure="barrier") == barrier
    assert len(frame[frame["kind"] == "another order"]) == 2


def test_retraining(home):
    frame, (engine, options, levels) = run("retraining", home), home
    dense = levels[0].run.weights
    cut = masks.ones(options.recipe)
    for number in range(1, 4):
        before, cut = cut, lotto.pruning.prune(dense, cut, 0.2)
        error = lotto.evaluate(options.recipe, masks.apply(dense, cut)).error
        assert only(frame, level=number, kind="without retraining", measure="error") == error
        length = lotto.weights.distance(masks.apply(dense, before), masks.apply(dense, cut))
        found = only(frame, level=number - 1, kind="without retraining", measure="projection length")
        assert found == pytest.approx(length, rel=1e-6)
        assert only(frame, level=number, kind="imp", measure="error") == levels[number].run.test_error
    start = levels[0].run.state(5).without_optimizer
    once = lotto.train(options.recipe, start=start, mask=cut, order_seed=0, from_step=5, engine=engine)
    assert only(frame, kind="one-shot", measure="error") == once.test_error
    bins = frame[(frame["measure"] == "weights in bin") & (frame["level"] == 1)]
    for _, part in bins.groupby("kind"):
        assert part["value"].sum() == pytest.approx(1.0)
    middle = only(bins, kind="after pruning", x=bins["x"].iloc[20])
    values = torch.cat([levels[1].run.weights[n][m] for n, m in levels[2].mask.items()]).abs().log10()
    low, high = experiments.BINS[20:22]
    assert middle == pytest.approx(float(((values >= low) & (values < high)).double().mean()), abs=1e-9)


def test_pruning_limit(home, monkeypatch):
    monkeypatch.setattr(pruning_limit, "FRACTIONS", (0.2, 0.6))
    frame, (engine, options, levels) = run("pruning_limit", home), home
    recipe, at = options.recipe, levels[1]
    base = lotto.evaluate(recipe, at.run.weights, "train").loss
    for share in (0.2, 0.6):
        cut = lotto.pruning.prune(at.run.weights, at.mask, share)
        start = masks.apply(at.run.weights, cut)
        place = {"level": 1, "kind": "magnitude", "x": share}
        rise = lotto.evaluate(recipe, start, "train").loss - base
        assert only(frame, **place, measure="rise of the loss, projection") == pytest.approx(rise, rel=1e-6)
        assert only(frame, **place, measure="error, projection") == lotto.evaluate(recipe, start).error
        found = only(frame, **place, measure="rise of the loss, subspace")
        assert found <= only(frame, **place, measure="rise of the loss, projection")
        trained = lotto.train(pruning_limit.search(recipe), start=start, mask=cut, order_seed=0, engine=engine)
        assert only(frame, **place, measure="error, subspace") == trained.test_error
    assert pruning_limit.search(recipe).total == 10
    theory = lotto.landscape.curvature.limits(recipe, at.run.weights, at.mask, pruning_limit.EPSILON, steps=48)
    for kind in ("random", "magnitude"):
        for reading in ("published", "corrected"):
            found = only(frame, level=1, kind=kind, measure=f"largest share, theory, {reading}")
            refused = theory.reason(kind, reading)
            assert math.isnan(found) if refused else found == theory.fraction(kind, reading)
            spread = only(frame, level=1, kind=kind, measure=f"standard error of the largest share, theory, {reading}")
            assert spread == theory.errors[kind, reading] > 0
    assert only(frame, level=1, measure="trace") == theory.spectrum.trace
    assert only(frame, level=1, measure="standard error of the trace") == theory.spectrum.trace_error
    assert only(frame, level=1, measure="Lanczos steps") == theory.steps
    assert only(frame, level=1, measure="examples of the spectrum") == 240, "all there are"
    assert set(frame["level"]) == {0, 1, 2}
    one_cut = round(1 - masks.count(levels[3].mask) / masks.count(at.mask), 3)
    assert only(frame, level=1, measure="share to the last level") == one_cut
    shares = sorted((0.2, 0.6, one_cut))
    cuts = [lotto.pruning.prune(at.run.weights, at.mask, share) for share in shares]
    costs = QuadraticTask(recipe, at.run.weights, at.mask, cuts, 240).execute()["costs"]
    found = frame[(frame["measure"] == "rise of the loss, quadratic") & (frame["level"] == 1)]
    assert list(found[found["kind"] == "magnitude"]["value"]) == costs
    largest = pruning_limit.largest(dict(zip(shares, costs, strict=True)), pruning_limit.EPSILON)
    assert only(frame, level=1, kind="magnitude", measure="largest share, quadratic") == largest


def test_distances_cross_at_the_limit(home, monkeypatch):
    monkeypatch.setattr(pruning_limit, "FRACTIONS", (0.2,))
    monkeypatch.setattr(pruning_limit, "LEVELS", 2)
    monkeypatch.setattr(pruning_limit, "STEPS", 512)
    smaller = at_home(home[0], small_recipe(model="mlp-8-8"))
    frame, levels = run("pruning_limit", smaller), smaller[2]
    squares = np.sort(torch.cat([levels[2].run.weights[n][k] for n, k in levels[2].mask.items()]).double() ** 2)
    for reading in ("published", "corrected"):
        rows = frame[(frame["measure"] == f"distance of pruning, {reading}") & (frame["level"] == 2)]
        moved = {kind: rows[rows["kind"] == kind].set_index("x")["value"] for kind in ("random", "magnitude")}
        allowed = rows[rows["kind"] == "limit"].set_index("x")["value"]
        assert list(allowed) == sorted(allowed, reverse=True), "the more goes, the less far"
        for part in (0.2, 0.6):
            count = round(part * len(squares))
            length = squares[:count].sum() if reading == "published" else squares[:count].mean() * len(squares)
            assert moved["magnitude"][part] == pytest.approx(math.sqrt(length), rel=1e-6)
            whole = squares.sum() * (part if reading == "published" else 1)
            assert moved["random"][part] == pytest.approx(math.sqrt(whole), rel=1e-2)
        for kind, distances in moved.items():
            limit = only(frame, level=2, kind=kind, measure=f"largest share, theory, {reading}")
            below, above = ([x for x in allowed.index if (x < limit) == side] for side in (True, False))
            above = [x for x in above if x > limit + 1 / len(squares)]  # fractions are of whole weights
            assert (distances[below] <= allowed[below] + 1e-6).all()
            assert (distances[above] >= allowed[above] - 1e-6).all()


def test_theory_that_has_not_converged_is_a_row_that_says_so(home, monkeypatch):
    monkeypatch.setattr(pruning_limit, "FRACTIONS", (0.2,))
    monkeypatch.setattr(pruning_limit, "STEPS", 4)
    frame = run("pruning_limit", home)
    rows = frame[frame["measure"].isin([f"largest share, theory, {r}" for r in ("published", "corrected")])]
    refused = rows[rows["value"].isna()]
    assert len(refused)
    assert refused["note"].str.startswith("not converged: in the second half of 4 Lanczos steps").all()
    table = readable(frame)
    shown = table[table["measure"] == refused["measure"].iloc[0]]
    assert "not converged" in set(shown[refused["kind"].iloc[0]])
    assert len(papers.get("unmasking.pruning_limit").plot(summary(frame), 0.2).axes) >= 6


def test_flatness(home):
    frame, (engine, options, levels) = run("flatness", home), home
    recipe, at = options.recipe, levels[1]
    block = lotto.landscape.curvature.pruned_block(
        recipe, at.run.weights, at.mask, {n: torch.zeros_like(k) for n, k in at.mask.items()}, examples=240
    )
    size, length = masks.count(at.mask), lotto.weights.norm(at.run.weights, at.mask)
    place = {"level": 1, "kind": "imp"}
    assert only(frame, **place, measure="trace") == pytest.approx(size * np.mean(block.means))
    assert only(frame, **place, measure="standard error of the trace") == pytest.approx(size * block.error)
    assert only(frame, **place, measure="unpruned weights") == size
    assert only(frame, **place, measure="norm of the solution") == pytest.approx(length)
    sharp = np.mean(block.means) * length**2
    assert only(frame, **place, measure="trace times squared norm per weight") == pytest.approx(sharp)
    hessian = lotto.landscape.curvature.Hessian(recipe, at.run.weights, at.mask).dense()
    assert abs(np.trace(hessian) - block.trace) < 4 * size * block.error
    # The largest share by hand: halve, train in what is left, keep the half that holds the crossing.
    base, low, high, rises = lotto.evaluate(recipe, at.run.weights, "train").loss, 0.0, 1.0, {}
    for _ in range(flatness.ROUNDS):
        part = (low + high) / 2
        seed = derived_seed(0, "limit 1", round(1000 * part))
        cut = lotto.pruning.prune(at.run.weights, at.mask, part, "random", seed=seed)
        start = masks.apply(at.run.weights, cut)
        trained = lotto.train(pruning_limit.search(recipe), start=start, mask=cut, order_seed=0, engine=engine)
        rises[part] = min(lotto.evaluate(recipe, w, "train").loss for w in (start, trained.weights)) - base
        low, high = (low, part) if rises[part] > pruning_limit.EPSILON else (part, high)
    found = only(frame, level=1, kind="random", measure="largest share, subspace, by halving")
    assert low <= found <= high
    assert high - low == 2**-flatness.ROUNDS
    assert found == pytest.approx(pruning_limit.largest(dict(sorted(rises.items())), pruning_limit.EPSILON))
    assert set(frame["level"]) == {0, 1, 2}, "all that are pruned again"


def test_halving_goes_on_below_the_first_fraction_that_costs_too_much():
    assert flatness.next_fraction({}, 0.1) == 0.5
    assert flatness.next_fraction({0.5: 0.2}, 0.1) == 0.25
    assert flatness.next_fraction({0.5: 0.05}, 0.1) == 0.75
    assert flatness.next_fraction({0.5: 0.2, 0.25: 0.05}, 0.1) == 0.375


def test_flat_directions(home):
    frame, (_, options, levels) = run("flat_directions", home), home
    recipe, here, after = options.recipe, levels[1], levels[2]
    hessian = lotto.landscape.curvature.Hessian(recipe, here.run.weights, here.mask, examples=240).dense()
    point = torch.cat([here.run.weights[n][k] for n, k in here.mask.items()]).double().numpy()
    gone = torch.cat([~after.mask[n][k] for n, k in here.mask.items()]).numpy()
    moved = np.where(gone, point, 0.0)
    expected = moved @ hessian @ moved / (moved @ moved)
    place = {"level": 1, "kind": "magnitude"}
    assert only(frame, **place, measure="curvature along the pruned weights") == pytest.approx(expected, rel=1e-4)
    mean = only(frame, **place, measure="mean curvature of the pruned weights")
    error = only(frame, **place, measure="standard error of the mean curvature")
    assert abs(mean - np.diag(hessian)[gone].mean()) < 5 * error
    random = frame[(frame["level"] == 1) & (frame["kind"] == "random")]
    assert len(random[random["measure"] == "curvature along the pruned weights"]) == flatness.RANDOM_CUTS
    assert random.groupby("measure")["value"].nunique().min() == flatness.RANDOM_CUTS, "different draws"
    whole = only(frame, level=1, kind="all weights", measure="curvature along the pruned weights")
    assert whole == pytest.approx(point @ hessian @ point / (point @ point), rel=1e-4)


def test_membership(home):
    frame, (engine, options, levels) = run("membership", home), home
    recipe, here, after = options.recipe, levels[1], levels[2]
    start = masks.apply(here.run.weights, after.mask)
    low = recipe.replace(optimizer=lotto.SGD(0.01, momentum=0.9), schedule=lotto.Linear(), steps="10it", evaluations=1)
    best = lotto.train(low, start=start, mask=after.mask, order_seed=0, engine=engine).weights
    path = lotto.landscape.evaluate_path(recipe, here.run.weights, best, 5, ("train", "test"))
    place = {"level": 2, "kind": "imp"}
    rise = max(path.loss["train"]) - lotto.evaluate(recipe, here.run.weights, "train").loss
    assert only(frame, **place, measure="rise of the loss on the way to the subspace") == pytest.approx(rise, abs=1e-7)
    rise = max(path.error["test"]) - here.run.test_error
    assert only(frame, **place, measure="rise of the error on the way to the subspace") == pytest.approx(rise)
    assert only(frame, **place, measure="error") == after.run.test_error
    away = lotto.weights.distance(here.run.weights, best, here.mask)
    assert only(frame, **place, measure="distance to the best point of the subspace") == pytest.approx(away)
    assert set(frame[frame["kind"] == "random"]["level"]) == {1, 2, 3}
    assert not frame["measure"].str.contains("recomputed").any(), "no BatchNorm in this model"


def test_adaptive(home):
    frame, (engine, options, levels) = run("adaptive", home), home
    density = masks.density(levels[-1].mask)
    result = lotto.imp(
        options.recipe, density=density, rewind_to="5it", replicates=1, controls=(), adaptive=True, engine=engine
    )
    (chain,) = result.replicates
    for at in chain:
        assert only(frame, kind="adaptive", measure="error", level=at.level) == at.run.test_error
    assert only(frame, kind="adaptive", measure="trainings") == result.trainings
    reached = masks.density(chain[-1].mask)
    assert only(frame, measure="density reached") == reached
    needed = 1 + sum(masks.density(at.mask) > reached * 1.001 for at in levels)
    assert only(frame, kind="imp", measure="trainings") == needed
    assert only(frame, kind="adaptive", measure="steps") == 40 + (result.trainings - 1) * 35
    assert list(frame[frame["measure"] == "share tried"]["value"]) == [t.share for t in result.trials]


def test_largest_share_is_where_the_rise_passes_epsilon():
    def largest(*rises, epsilon=0.1):
        return pruning_limit.largest(dict(zip((0.1, 0.2, 0.4), rises, strict=True)), epsilon)

    assert largest(0.0, 0.05, 0.25) == pytest.approx(0.2 + 0.25 * 0.2)
    assert largest(0.0, 0.05, 0.25, epsilon=1.0) == 0.4
    assert largest(0.2, 0.3, 0.4) == pytest.approx(0.05)
    assert largest(0.05, 0.3, 0.05) < 0.2, "the first crossing counts"


def test_matching_levels_are_circled():
    rows = []
    for level, (error, barrier) in enumerate(((2.0, 0.0), (2.1, 0.0), (2.3, 1.0), (2.15, math.nan))):
        place = {"rewind_step": 0, "level": level, "density": 0.8**level, "kind": "imp", "unit": "points", "std": 0.1}
        rows.append({**place, "measure": "error", "x": math.nan, "mean": error})
        if level < 3:
            rows.append({**place, "measure": "barrier", "x": level + 1, "mean": barrier})
    made = papers.get("unmasking.connectivity").plot(pd.DataFrame(rows), 0.2)
    errors, barriers, matrix = made.axes[:3]

    def circled(axis):
        (found,) = [line for line in axis.lines if line.get_markersize() == 9]
        return list(zip(*found.get_data(), strict=True))

    assert circled(errors) == [(1.0, 2.0), (0.8, 2.1), (0.8**3, 2.15)]
    assert circled(barriers) == [(1.0, 0.0)], "both ends match only once"
    assert list(matrix.lines[0].get_xdata()) == [0, 1, 3]


def test_batchnorm_statistics_are_recomputed_too(store, monkeypatch):
    monkeypatch.setattr(pruning_limit, "FRACTIONS", (0.5,))

    def model():
        return torch.nn.Sequential(
            torch.nn.Linear(12, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Linear(16, 6)
        )

    engine = Serial(store)
    options = papers.Options(small_recipe(model=model, init="module"), 1, ("0it",), 2, points=3, random_chain=False)
    chain = lotto.imp(options.recipe, levels=2, rewind_to="0it", replicates=1, controls=(), engine=engine)
    levels, start = chain.replicates[0], chain.replicates[0][0].run.at(0)
    frame = papers.get("unmasking.connectivity").run(options, engine)
    rows = frame[frame["measure"] == "barrier, statistics recomputed"]
    assert list(zip(rows["level"], rows["x"], strict=True)) == [(0, 1), (0, 2), (1, 2)]
    assert set(rows["bn_examples"]) == {options.recipe.bn_examples}

    def between(a, b, points, batchnorm):
        return lotto.landscape.evaluate_path(options.recipe, a, b, points, batchnorm=batchnorm, engine=engine)

    for row in rows.to_dict("records"):
        ends = (levels[int(row[name])].run.weights for name in ("level", "x"))
        assert row["value"] == between(*ends, 3, "recompute").barrier("line")
    projected = papers.get("unmasking.projection").run(options, engine)
    cut = masks.apply(levels[0].run.weights, levels[1].mask)
    for policy, ending in (("interpolate", ""), ("recompute", ", statistics recomputed")):
        forth = between(cut, levels[1].run.weights, 3, policy)
        back = between(masks.apply(start, levels[1].mask), cut, 2, policy)
        assert only(projected, level=0, measure=f"projection error{ending}") == forth.error["test"][0]
        assert only(projected, level=0, measure=f"barrier from the projection{ending}") == forth.barrier("line")
        assert only(projected, level=0, measure=f"next initialisation error{ending}") == back.error["test"][0]
    moved = papers.get("unmasking.robustness").run(options, engine)
    both = [moved[(moved["measure"] == name) & (moved["kind"] == "perturbed")] for name in (
        "barrier", "barrier, statistics recomputed"
    )]  # fmt: skip
    assert [list(part["x"]) for part in both] == [[0.5, 1, 2, 4]] * 2
    for name, measured in (("connectivity", frame), ("projection", projected), ("robustness", moved)):
        made = papers.get(f"unmasking.{name}").plot(summary(measured), 0.2)
        assert any(line.get_linestyle() == "--" for axis in made.axes for line in axis.lines) or name == "robustness"
    frame = papers.get("unmasking.membership").run(options, engine)
    again = frame[frame["measure"].str.endswith("on the way to the subspace, recomputed")]
    assert len(again) == 2 * 2 * 2, "loss and error, two levels, two kinds"
    frame = papers.get("unmasking.pruning_limit").run(options, engine)
    again = frame[frame["measure"] == "rise of the loss, projection, statistics recomputed"]
    assert set(again["kind"]) == {"random", "magnitude"}
    assert set(again["bn_examples"]) == {10_000}


@pytest.mark.extras
def test_files_report_and_tables(home, tmp_path):
    for name in ("connectivity", "projection", "robustness", "retraining", "adaptive"):
        experiment = papers.get(f"unmasking.{name}")
        frame = run(name, home)
        save_experiment(experiment, home[1], frame, tmp_path, "lotto run ...", 1.0)
        stored = pd.read_csv(tmp_path / f"{name}.csv")
        assert np.array_equal(stored["value"], frame["value"])
        table = readable(frame)
        assert not table["measure"].isin(("plane", "weights in bin")).any()
        assert not (
            table["measure"].str.startswith("barrier") & (table.get("at", "") == "3") & (table["left"] == "100 %")
        ).any()
    text = write_experiments(tmp_path, [*papers.EXPERIMENTS.values()]).read_text()
    assert text.count("<svg") == 5
    for path in tmp_path.glob("*.csv"):
        assert ElementTree.parse(path.with_suffix(".svg")).getroot().tag.endswith("svg")


@pytest.mark.extras
def test_command_runs_all(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pruning_limit, "FRACTIONS", (0.5, 0.9))
    monkeypatch.setattr(pruning_limit, "LARGEST", 0)
    monkeypatch.setattr(convergence, "LEAST_EXAMPLES", 200)
    drawn = []

    def svg(figure, *, words=False):
        drawn.append((figure, words))
        return "<svg></svg>"

    monkeypatch.setattr(plots, "svg", svg)
    monkeypatch.setattr(flatness, "ROUNDS", 1)
    main(
        ["run", "unmasking.all", "mlp-mnist1d", "--steps", "20it", "--levels", "2", "--replicates", "1", "--points", "3",
         "--rewind-to", "0it", "--jobs", "1", "--examples", "100", "--set", "model=mlp-16-16", "--out", str(tmp_path)]
    )  # fmt: skip
    assert {p.stem for p in tmp_path.glob("*.csv")} == {e.name for e in experiments.EXPERIMENTS}
    files = [figure for figure, words in drawn if not words]
    assert len(files) == len(experiments.EXPERIMENTS), "each figure once, though each result goes into the report"
    assert "How much can be pruned at once" in capsys.readouterr().out
    with pytest.raises(UsageError, match="Unknown experiment"):
        papers.select("unmaskin.all")
