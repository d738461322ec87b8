"""Trained tickets as programs: written, compared, measured, and loaded by processes with and without lotto."""

from __future__ import annotations

import contextlib
import os
import re

import pytest
import torch
from torch import nn

import interpreter
import lotto
from conftest import small_recipe
from lotto.cli.main import main
from lotto.core.errors import UsageError
from lotto.inference import programs
from lotto.inference.export import load_trained
from lotto.inference.programs import program_of
from lotto.inference.variants import forms, variants
from lotto.report.inference import export_table, what_pays
from lotto.report.save import save_result

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    recipe = lotto.recipes.mlp_mnist1d(steps="40it", evaluations=1, tolerance=100.0)
    found = lotto.imp(
        recipe,
        one_shot=True,
        density=0.03,
        replicates=1,
        controls=(),
        engine=lotto.engine.Serial(lotto.Store(folder / "s")),
    )
    save_result(found, folder / "out", "lotto imp", 1.0)
    return found, folder / "out"


def run_cli(*arguments):
    with pytest.raises(SystemExit) if arguments[-1] == "fails" else contextlib.nullcontext() as left:
        main([str(a) for a in arguments if a != "fails"])
    return left


def test_export_measures_and_writes_the_form_that_is_asked_for(result, capsys, monkeypatch):
    _, folder = result
    monkeypatch.setenv("COLUMNS", "200")
    recipe, module, _ = load_trained(folder / "ticket.safetensors")
    x = recipe.arrays.x["test"][:9]
    for kind, options in (("pruned", ()), ("compact", ("--compact",)), ("sparse", ("--sparse",))):
        run_cli("export", folder, *options)
        shown = " ".join(capsys.readouterr().out.split())
        assert f"{kind}.pt2" in shown
        assert "Sparse against the quickest other network: batches of 1: " in shown
        assert ("needs lotto where it runs" in shown) == (kind == "sparse")
        with torch.no_grad():
            loaded = torch.export.load(folder / f"{kind}.pt2").module()
            torch.testing.assert_close(loaded(x), module(x), rtol=1e-4, atol=1e-5)
    sizes = {kind: (folder / f"{kind}.pt2").stat().st_size for kind in ("pruned", "sparse")}
    assert sizes["sparse"] < 0.5 * sizes["pruned"]


def test_forms_are_measured_on_the_test_set(result):
    found, folder = result
    trained = found.replicates[0][found.chosen_level].run
    recipe, module, about = load_trained(folder)
    assert float(about["density"]) in list(found.table()["density"])
    told = []
    measured = variants(recipe, forms(recipe, module), {"sparse": 1500}, told.append)
    assert [v.name for v in measured] == ["dense", "compact", "sparse"]
    dense, _, sparse = measured
    assert sparse.kilobytes < 0.2 * dense.kilobytes
    assert dense.kilobytes == pytest.approx(sum(4 * p.numel() for p in module.parameters()) / 1000)
    assert [v.file_kilobytes for v in measured] == [None, None, 1.5]
    for variant in measured:
        assert variant.error == pytest.approx(trained.test_error)
        assert variant.difference < 1e-3
        assert set(variant.milliseconds) == {1, 64}
        assert set(variant.milliseconds_bfloat16) == (set() if variant is sparse else {1, 64})
    half = module.bfloat16()
    x, y = recipe.arrays.x["test"].bfloat16(), recipe.arrays.y["test"]
    with torch.no_grad():
        wrong = 100 * float((half(x).argmax(1) != y).double().mean())
    assert dense.error_bfloat16 == pytest.approx(wrong)
    assert sparse.error_bfloat16 is None
    assert told[:2] == ["Timing batches of 1", "Timing batches of 64"]
    assert export_table(measured, 0.03, " %").row_count == 9


def test_a_sentence_says_where_sparsity_does_not_pay(result):
    recipe, module, _ = load_trained(result[1])
    measured = variants(recipe, forms(recipe, module))
    said = what_pays(measured)
    ratios = re.findall(r"batches of (\d+): ([0-9.]+)× float32, ([0-9.]+)× bfloat16(, sparsity does not pay)?", said)
    assert [n for n, *_ in ratios] == ["1", "64"]
    for n, float32, bfloat16, no in ratios:
        quickest = min(v.milliseconds[int(n)] for v in measured[:2])
        assert float(float32) == pytest.approx(quickest / measured[2].milliseconds[int(n)], abs=0.006)
        assert bool(no) == (min(float(float32), float(bfloat16)) < 1)
    assert "no sparse network" in what_pays(measured[:2])


LOADED = """
import sys, torch
import lotto.inference
program = torch.export.load(sys.argv[1]).module()
given, expected = torch.load(sys.argv[2])
for count in (1, 3, len(given)):
    torch.testing.assert_close(program(given[:count]), expected[:count], rtol=1e-4, atol=1e-5)
print("equal")
"""
WITHOUT = """
import sys, torch
torch.export.load(sys.argv[1])
"""


@pytest.fixture(scope="module")
def sparse_file(result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    recipe, module, _ = load_trained(result[1])
    path = programs.save_program(forms(recipe, module)["sparse"], recipe, folder / "sparse.pt2")
    x = recipe.arrays.x["test"][:70]
    with torch.no_grad():
        torch.save((x, module(x)), folder / "examples.pt")
    return str(path), str(folder / "examples.pt")


def test_another_process_loads_a_sparse_program_with_lotto_inference_only(sparse_file):
    done = interpreter.run(LOADED, *sparse_file)
    assert done.stdout == "equal\n", done.stderr


def test_without_numba_dense_layers_compute_the_same(sparse_file):
    code = "import importlib.util as u\nfound = u.find_spec\n"
    code += "u.find_spec = lambda name, *more: None if name == 'numba' else found(name, *more)\n" + LOADED
    code += "assert 'lotto.inference.network_kernel' not in sys.modules"
    done = interpreter.run(code, *sparse_file)
    assert (done.stdout, done.returncode) == ("equal\n", 0), done.stderr


def test_without_lotto_torch_says_which_operator_is_missing(sparse_file):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = interpreter.run(WITHOUT, sparse_file[0], environment=environment)
    assert done.returncode != 0
    assert "lotto" in done.stderr
    assert "sparse_network" in done.stderr


def test_a_program_with_other_outputs_is_refused(result, monkeypatch):
    recipe, module, _ = load_trained(result[1])
    exported = programs.exported

    def other(network, inputs):
        changed = load_trained(result[1])[1]
        changed.fc3.bias.data += 1
        return exported(changed, inputs)

    monkeypatch.setattr(programs, "exported", other)
    with pytest.raises(UsageError, match="cannot be made a program: on the example the outputs differ by up to 1"):
        program_of(module, recipe)


class Pairs(nn.Module):
    """Another network for two examples than for others."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 6)

    def forward(self, x):
        return self.fc(x.sigmoid()) if len(x) == 2 else self.fc(x)


def test_a_network_that_looks_at_the_size_of_its_batch_is_refused():
    module = Pairs().eval()
    with pytest.raises(UsageError, match=r"torch\.export cannot export|cannot be made a program"):
        program_of(module, small_recipe())


def test_export_says_what_is_missing(tmp_path, capsys):
    left = run_cli("export", tmp_path, "fails")
    assert left.value.code == 2
    assert "There is no trained.safetensors" in " ".join(capsys.readouterr().err.split())


def test_a_form_that_there_is_not_is_said(tmp_path, capsys, monkeypatch):
    recipe = small_recipe(steps="5it", model="mlp-24-16", data="mnist1d")
    found = lotto.imp(recipe, 1, replicates=1, controls=(), engine=lotto.engine.Serial(lotto.Store(tmp_path / "s")))
    save_result(found, tmp_path / "out", "lotto imp", 1.0)
    left = run_cli("export", tmp_path / "out", "--sparse", "fails")
    assert left.value.code == 2
    assert "There is no sparse form of this network" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out" / "sparse.pt2").exists()


def test_a_model_of_ones_own_is_compacted_in_python(tmp_path):
    found = lotto.imp(
        small_recipe(steps="5it"), 1, replicates=1, controls=(), engine=lotto.engine.Serial(lotto.Store(tmp_path / "s"))
    )
    save_result(found, tmp_path, "lotto imp", 1.0)
    with pytest.raises(UsageError, match=r"cannot be built from its name.*lotto.inference.compact"):
        load_trained(tmp_path)
