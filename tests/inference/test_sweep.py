"""How small and how quick: sizes, errors and densities against slow references, times of forms that are equal."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy.stats import binomtest
from torch import nn

import lotto
from conftest import small_recipe
from lotto.cli.main import main
from lotto.core.errors import LottoError, UsageError
from lotto.execution.events import StageAdvanced
from lotto.inference import all_forms, timing
from lotto.inference.density_sweep import Sweep
from lotto.inference.timing import interleaved, is_quicker, simplest_quickest
from lotto.report import sweeps as report

QUICK = {"batches": [1, 3], "progress": False}


@pytest.fixture(scope="module", autouse=True)
def few_turns():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "TURNS", 3)
        patch.setattr(timing, "FEWEST", 3)
        patch.setattr(timing, "LONG_ENOUGH", 0.0)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    store = tmp_path_factory.mktemp("sweep") / "store"
    recipe = small_recipe(model="mlp-64-32")
    return lotto.imp(recipe, densities=[0.5, 0.05], replicates=2, controls=(), jobs=1, store=store), store


@pytest.fixture(scope="module")
def measured(trained):
    result, store = trained
    return lotto.sweep(result, store=store, **QUICK)


def wrong(recipe, weights):
    """Percent of wrong predictions, in float64."""
    a = recipe.arrays.x["test"].double().numpy()
    for layer in ("fc1", "fc2", "fc3"):
        a = a @ weights[f"{layer}.weight"].double().numpy().T + weights[f"{layer}.bias"].double().numpy()
        a = np.maximum(a, 0) if layer != "fc3" else a
    return 100 * float((a.argmax(1) != recipe.arrays.y["test"].numpy()).mean())


def test_a_row_for_each_level_says_what_is_left_and_repeats_the_errors(trained, measured, tmp_path):
    result, _ = trained
    frame, table = measured.table(), result.table()
    assert list(frame["level"]) == [0, 1, 2]
    for column in ("error", "error_std", "gap", "gap_high", "verdict"):
        pd.testing.assert_series_equal(frame[column], table[column])
    for level, row in frame.iterrows():
        weights = result.runs[0, level, "imp"].weights
        left = sum(int((w != 0).sum()) for name, w in weights.items() if name.endswith("weight"))
        total = sum(w.numel() for w in weights.values())
        matrices = sum(w.numel() for name, w in weights.items() if name.endswith("weight"))
        assert row["density"] == pytest.approx(left / matrices)
        assert row["parameters"] == left + total - matrices
        assert row["parameter_fraction"] == pytest.approx(row["parameters"] / total)
        save_file(dict(weights), tmp_path / "dense.safetensors")
        assert row["dense_bytes"] == (tmp_path / "dense.safetensors").stat().st_size
    last = frame.iloc[-1]
    assert last["sparse_bytes"] < last["compact_bytes"] < last["dense_bytes"]
    assert last["compact_parameters"] < last["parameters"] / last["density"]
    for batch in (1, 3):
        assert frame[f"dense_ms_{batch}"].nunique() == 1  # its zeros are multiplied: it is timed once
        assert (frame[f"dense_ms_{batch}"] > 0).all()
        assert set(frame[f"quickest_{batch}"]) <= set(measured.forms)


def test_a_module_is_pruned_by_magnitude_and_not_trained_again(trained):
    result, _ = trained
    recipe = small_recipe(model="mlp-64-32")
    weights = dict(result.runs[0, 0, "imp"].weights)
    module = recipe.build()
    module.load_state_dict(weights)
    found = lotto.sweep(module.train(), recipe, densities=[0.1, 0.5], **QUICK).table()
    assert module.training
    assert all(torch.equal(t, weights[name]) for name, t in module.state_dict().items())
    matrices = [name for name in weights if name.endswith("weight")]
    size = sorted((abs(float(v)) for name in matrices for v in weights[name].flatten()), reverse=True)
    for row, density in zip(found.to_dict("records"), (1.0, 0.5, 0.1), strict=True):
        least = size[round(density * len(size)) - 1]
        pruned = {n: torch.where(t.abs() >= least, t, 0) if n in matrices else t for n, t in weights.items()}
        assert row["density"] == pytest.approx(density, abs=1 / len(size))
        assert row["error"] == pytest.approx(wrong(recipe, pruned))
        assert row["gap"] == pytest.approx(row["error"] - found["error"][0])
    pair = (recipe.arrays.x["test"], recipe.arrays.y["test"])
    for data in (pair, recipe.arrays):
        again = lotto.sweep(module, data, densities=[0.1], forms=["dense"], **QUICK).table()
        assert list(again["error"]) == [found["error"][0], found["error"][2]]


def test_a_pruned_network_begins_at_the_density_that_it_has():
    network = nn.Sequential(nn.Linear(8, 10, bias=False), nn.ReLU(), nn.Linear(10, 2, bias=False))
    network[0].weight.data[:, 4:] = 0  # 60 of 100 are left
    found = lotto.sweep(network, torch.randn(2, 8), densities=[0.3], **QUICK)
    assert list(found.table()["density"]) == [0.6, 0.3]
    assert found.table()["error"].isna().all()
    with pytest.raises(UsageError, match=r"has 60 % of its prunable weights left.*got 0\.7"):
        lotto.sweep(network, torch.randn(2, 8), densities=[0.7], **QUICK)


def test_a_recipe_is_trained_at_each_density(trained, tmp_path):
    recipe = small_recipe(model="mlp-64-32")
    found = lotto.sweep(recipe, densities=[1.0, 0.3], store=tmp_path, forms=["sparse"], **QUICK).table()
    assert list(found["n"]) == [1, 1]
    again = lotto.imp(recipe, densities=[0.3], replicates=1, controls=(), jobs=1, store=tmp_path)
    assert list(found["error"]) == list(again.table()["error"])


def test_a_loaded_result_takes_its_weights_from_its_file_or_the_store(trained, measured, tmp_path):
    result, store = trained
    recipe = small_recipe(model="mlp-64-32")
    with_weights, without = result.save(tmp_path / "a"), result.save(tmp_path / "b", weights=False)
    for folder, place in ((with_weights, tmp_path / "empty"), (without, store)):
        found = lotto.sweep(lotto.load(folder), recipe, levels=[2, 0], store=place, **QUICK).table()
        assert list(found["level"]) == [0, 2]
        assert list(found["sparse_bytes"].dropna()) == list(measured.table()["sparse_bytes"].iloc[[2]])
    with pytest.raises(UsageError, match=r"The trained weights of level 0 are neither .* nor remembered in .*empty"):
        lotto.sweep(lotto.load(without), recipe, store=tmp_path / "empty", **QUICK)
    with pytest.raises(UsageError, match=r"'mlp-64-32' on .*lotto\.sweep\(result, recipe\)"):
        lotto.sweep(with_weights, **QUICK)
    with pytest.raises(UsageError, match="The recipe's network is another than the result's"):
        lotto.sweep(with_weights, small_recipe(), **QUICK)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, a, b):
        return self.fc(a) * b


def test_of_several_inputs_the_dense_network_alone_is_measured_and_why_is_said():
    found = lotto.sweep(Two(), {"a": torch.randn(2, 4), "b": torch.randn(2, 3)}, densities=[0.5], **QUICK)
    assert "sparse_bytes" not in found.table()
    assert found.forms[0] == "dense"
    assert found.missing["compact"] == "its inputs are several tensors"
    assert "there is no sparse network" in found.summary


def test_a_form_with_other_outputs_is_not_measured(monkeypatch):
    compact = all_forms.compact

    def other(module, inputs):
        made = compact(module, inputs)
        [*made.parameters()][-1].data += 1
        return made

    monkeypatch.setattr(all_forms, "compact", other)
    with pytest.raises(UsageError, match="cannot be made compact: on the example the outputs differ by up to 1"):
        lotto.sweep(nn.Sequential(nn.Linear(4, 2)), torch.randn(2, 4), densities=[0.5], **QUICK)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"data": None}, r"A module is measured on data=: a recipe.*got None"),
        ({"data": "mnis"}, "Unknown data set 'mnis'"),
        ({"data": torch.ones(2, 5)}, r"Sequential cannot read the example.*Give a batch"),
        ({"data": torch.ones(0, 4)}, "Sequential cannot read the example"),
        ({"densities": []}, "densities are fractions of the prunable weights"),
        ({"densities": [0.5, 1.5]}, "densities are fractions of the prunable weights"),
        ({"densities": [0.0001]}, r"No weight is left at a density of 0\.0001 of 8 prunable weights"),
        ({"levels": [1]}, r"levels chooses among those of a result"),
        ({"replicate": 1}, r"replicate chooses among those of a result"),
        ({"batches": [0]}, "batches is a list of whole numbers"),
        ({"batches": []}, "batches is a list of one or more sizes"),
        ({"forms": ["onx"]}, "Unknown form 'onx'.*Did you mean 'onnx'"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_measured(arguments, said):
    events = []
    given = {"data": torch.ones(2, 4), "densities": [0.5], "progress": events.append, **arguments}
    with pytest.raises(LottoError, match=said):
        lotto.sweep(nn.Sequential(nn.Linear(4, 2)), **given)
    assert not events


def test_bad_levels_of_a_result_are_one_sentence(trained):
    result, store = trained
    for arguments, said in (
        ({"levels": [7]}, "Levels are 0 to 2; got 7"),
        ({"levels": []}, "levels is a list of one or more levels"),
        ({"replicate": 2}, "Replicates are 0 to 1; got 2"),
        ({"densities": [0.5]}, "A result has levels, not densities"),
    ):
        with pytest.raises(UsageError, match=said):
            lotto.sweep(result, store=store, **arguments, **QUICK)


def test_progress_says_where_it_stands():
    events = []
    lotto.sweep(nn.Sequential(nn.Linear(4, 2)), torch.ones(2, 4), densities=[0.5], batches=[1], progress=events.append)
    assert all(isinstance(event, StageAdvanced) and event.done < event.total for event in events)
    stages = [*dict.fromkeys(event.stage for event in events)]
    assert stages == ["Making the networks smaller", "Timing batches of 1", "Test errors"]


# --- times ------------------------------------------------------------------------------------------------------


def test_every_call_is_made_in_every_turn_and_none_always_comes_first():
    made = []
    found = interleaved({name: (lambda name=name: made.append(name)) for name in "abc"}, threads=1)
    assert {len(turns) for turns in found.values()} == {3}
    assert {made.count(name) for name in "abc"} == {1 + 3 + 3 * 2}  # warmed up, tried, two in each turn
    changes = [one + two for one, two in pairwise(made) if one != two]
    assert {"ab", "bc", "ca"} <= set(changes)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=45))
def test_a_call_is_quicker_where_a_sign_test_says_so(pairs):
    one, other = zip(*pairs, strict=True)
    wins, ties = sum(a < b for a, b in pairs), sum(a == b for a, b in pairs)
    turns = len(pairs) - ties
    expected = bool(turns) and binomtest(wins, turns, alternative="greater").pvalue <= 0.05
    assert is_quicker(one, other) == expected


@given(st.lists(st.lists(st.integers(1, 9), min_size=15, max_size=15), min_size=1, max_size=5))
def test_the_quickest_has_the_least_median_or_is_not_shown_to_be_slower(times):
    named = dict(enumerate(times))
    found = simplest_quickest(named)
    least = times[int(np.argmin([np.median(turns) for turns in times]))]  # of several the first
    assert found == times.index(least) or not is_quicker(least, times[found])
    for simpler in range(found):  # each of these was shown to be slower
        assert is_quicker(least, times[simpler])


# --- what is said -----------------------------------------------------------------------------------------------


def made_up(sparse, quickest, **more):
    frame = pd.DataFrame(
        {
            "density": [1.0, 0.1, 0.01], "parameter_fraction": [1.0, 0.1, 0.01], "parameters": [1000, 100, 10],
            "error": [2.0, 2.1, 9.0], "gap": [0.0, 0.1, 7.0], "dense_bytes": 4000, "sparse_bytes": [8000, 800, 80],
            "dense_ms_1": 1.0, "sparse_ms_1": sparse, "quickest_1": quickest, **more,
        }
    )  # fmt: skip
    return Sweep(frame, ("dense", "sparse"), (1,), "made up", "About.", "error %", " %")


def test_a_sentence_says_where_sparsity_pays_and_where_it_does_not():
    never = made_up([9.0, 2.0, 1.25], ["dense"] * 3)
    assert "Batches of 1: sparsity does not pay (at best 0.80× the quickest other form's speed, at 1 % left)." in (
        never.summary
    )
    late = made_up([9.0, 0.5, 0.25], ["dense", "sparse", "sparse"])
    assert "sparsity pays from 10 % left down, elsewhere it does not (at best 4.00×" in late.summary
    middle = made_up([9.0, 0.5, 2.0], ["dense", "sparse", "dense"])
    assert "sparsity pays at 10 % left alone, elsewhere it does not" in middle.summary
    assert "Sparsest here: 1 % left, 80 B on disk as sparse, 50 times smaller than dense." in late.summary


def test_the_sparsest_level_counts_up_to_the_first_that_does_not_match():
    times = ([9.0, 2.0, 1.25], ["dense"] * 3)
    first = made_up(*times, verdict=["dense", "matching", "failing"])
    assert first.summary.startswith("Sparsest level shown to match: 10 % left, 800 B on disk as sparse, 5.0 times")
    after = made_up(*times, verdict=["dense", "failing", "matching"])
    assert after.summary.startswith("No pruned level is shown to match.")


def test_texts_and_figure(measured, tmp_path):
    text = str(measured)
    assert max(map(len, text.splitlines())) <= 80
    assert measured.summary.split(". ")[-1].rstrip(".") in " ".join(text.split())
    for level in (r"0 +100 %", r"1 +50 %", r"2 +4\.99 %"):
        assert len(re.findall(rf"^ +{level}", text, re.MULTILINE)) == 4  # errors, sizes, two batches
    markdown = measured.table_as("markdown")
    assert markdown.count("\n|") == 4
    assert "sparse, batch of 3, ms" in markdown
    assert r"\toprule" in measured.table_as("latex")
    assert measured.save(tmp_path) == tmp_path
    again = pd.read_csv(tmp_path / report.CSV)
    pd.testing.assert_frame_equal(again, measured.table(), check_dtype=False)
    figure = (tmp_path / report.FIGURE).read_text()
    assert figure.startswith("<svg")
    assert len(measured.plot().axes) == 4
    assert "<table>" in measured._repr_html_()
    with pytest.raises(UsageError, match="Unknown format of a table 'pdf'"):
        measured.table_as("pdf")


def test_bfloat16_is_shown_where_it_helps_and_its_error_is_measured(trained):
    result, store = trained
    found = lotto.sweep(result, store=store, forms=["bfloat16"], batches=[1])
    frame = found.table()
    helps = frame["bfloat16_ms_1"] < frame["dense_ms_1"]
    has_error = frame["error_bfloat16"].notna() if "error_bfloat16" in frame else pd.Series(False, frame.index)
    if "compact_ms_1" not in frame:
        assert list(has_error) == list(helps)
    assert ("bfloat16 is nowhere quicker" in str(found)) == (not has_error.any())


# --- the command ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("command")
    recipe = lotto.recipes.mlp_mnist1d(steps="20it", evaluations=1)
    result = lotto.imp(recipe, densities=[0.05], replicates=1, controls=(), jobs=1, store=place / "store")
    return result.save(place / "out", weights=False), place / "store"


def test_the_command_prints_and_writes_the_table_of_levels(folder, capsys):
    at, store = folder
    main(["export", str(at), "--table", "--store", str(store)])
    printed = capsys.readouterr()
    assert "Sparsity" in printed.out or "sparsity" in printed.out
    assert "Timing batches of 1 …" in printed.err
    assert list(pd.read_csv(at / "sweep.csv")["level"]) == [0, 1]
    assert (at / "sweep.svg").exists()
    (at / "sweep.csv").unlink()
    main(["export", str(at), "--table", "--levels", "1", "--format", "csv", "--store", str(store)])
    assert capsys.readouterr().out.startswith("level,density,")
    assert not (at / "sweep.csv").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--levels", "1"], "--levels is for the table of levels: add --table"),
        (["--table", "--format", "pdf"], "Unknown format of a table 'pdf'"),
        (["--table", "--levels", "x"], "--levels takes whole numbers"),
        (["--table", "--levels", "9"], "Levels are 0 to 1; got 9"),
        (["--table", "--store", "/dev/null/x"], "nor remembered in /dev/null/x|Cannot read|Cannot look"),
        (["--table", "--out", "/dev/null/x"], "Cannot write to /dev/null/x"),
        (["--onnx", "--sparse"], "ONNX has no operator that skips pruned weights"),
        (["--onnx", "--torchscript"], "two files: write one at a time"),
    ],
)
def test_what_cannot_be_exported_is_one_line(folder, options, said, capsys):
    with pytest.raises(SystemExit) as left:
        main(["export", str(folder[0]), *options])
    assert left.value.code == 2
    assert re.search(said, " ".join(capsys.readouterr().err.split()))


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_other_runtimes_stand_in_the_table(trained):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    result, store = trained
    found = lotto.sweep(result, store=store, levels=[0, 2], forms=["compact", "onnx", "torchscript"], batches=[2])
    frame = found.table()
    assert found.forms == ("dense", "compact", "onnx", "torchscript")
    assert (frame[["onnx_ms_2", "torchscript_ms_2"]] > 0).all().all()
    assert frame["onnx_bytes"][1] < frame["onnx_bytes"][0] - 1000
    assert not math.isnan(frame["torchscript_bytes"].sum())
