"""Every page of docs runs as it stands: its Python blocks one after the other, its commands with real options."""

from __future__ import annotations

import inspect
import re
import warnings
from dataclasses import fields
from pathlib import Path

import pytest

from lotto.cli.imp_command import imp
from lotto.cli.options import Changes, Execution
from lotto.recipe import presets

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


LONG = {"cluster.md", "engines.md", "trainers.md", "huggingface.md", "runtimes.md"}
"""Pages that start workers, or need optional packages."""


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.name, marks=pytest.mark.extras if page.name in LONG else ()) for page in PAGES]
)
def test_python_blocks_run_one_after_the_other(page, tmp_path, monkeypatch, capsys):
    if page.name == "cluster.md":
        pytest.importorskip("ray")
    if page.name == "huggingface.md":
        pytest.importorskip("datasets")
    if page.name == "runtimes.md":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
        warnings.filterwarnings("ignore", ".*torch.jit.*is deprecated.*")
    if page.name == "trainers.md":
        pytest.importorskip("lightning")
        pytest.importorskip("transformers")
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
        warnings.filterwarnings("ignore", ".*pin_memory.*")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert blocks
    names: dict[str, object] = {"__name__": "docs"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page.name}, block {number + 1}", "exec", dont_inherit=True), names)
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_real_recipes_and_options(page):
    names = [
        "track",
        *inspect.signature(imp).parameters,
        *(field.name for field in (*fields(Changes), *fields(Execution))),
    ]
    options = {f"--{name.replace('_', '-')}" for name in names}
    typed = "".join(re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL))
    for recipe, rest in re.findall(r"lotto imp (\S+)(.*)", typed):
        assert recipe in presets.PRESETS, recipe
        assert set(re.findall(r"--[a-z-]+", rest)) <= options


def test_the_readme_leads_to_every_page():
    readme = (ROOT / "README.md").read_text()
    assert PAGES
    for page in PAGES:
        assert f"](docs/{page.name})" in readme, page.name


def test_the_plan_of_imagenet_prints_what_its_page_says(capsys):
    text = (ROOT / "docs" / "imagenet-plan.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (said,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    exec(block, names)
    assert capsys.readouterr().out == said
    assert names["hours_on"](1, [[[2.0], [1.0, 3.0]]]) == pytest.approx(6.0, abs=0.001)
    assert names["hours_on"](2, [[[2.0], [1.0, 3.0]]]) == pytest.approx(5.0, abs=0.001)
    chains, stored = names["plan"](replicates=1, densities=(0.2,), rewinds=1)
    assert [len(chain[1]) for chain in chains] == [1, 1, 1]
    assert stored == pytest.approx(4 * 4 * sum(names["PARAMETERS"].values()))
    recipe = presets.get("resnet50-imagenet")
    assert chains[0][0] == [pytest.approx(90 * 1_281_167 / 1000 / 3600)]
    assert str(recipe.steps) == "90ep"


def test_snip_of_the_page_is_eight_lines_and_is_the_product_of_weight_and_gradient():
    import torch
    from torch.nn import functional as F

    from conftest import small_recipe
    from lotto.lottery import score_weights
    from lotto.pruning import masks

    text = (ROOT / "docs" / "scores.md").read_text()
    (source,) = re.findall(r"^def snip\(context\):\n(?:    .*\n)+", text, re.MULTILINE)
    assert len(source.splitlines()) <= 8
    found: dict = {}
    exec(source, found)
    recipe = small_recipe(precision="float64")
    weights = recipe.initial(2)
    got = score_weights(recipe, weights, score=found["snip"])
    module = recipe.build().double()
    module.load_state_dict({name: w.double() for name, w in weights.items()})
    x, y = recipe.arrays.x["train"].double(), recipe.arrays.y["train"]
    F.cross_entropy(module(x), y).backward()
    for name, parameter in module.named_parameters():
        if name in masks.ones(recipe):
            assert torch.allclose(got[name], (parameter * parameter.grad).abs(), rtol=1e-6, atol=1e-12), name
