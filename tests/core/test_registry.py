"""Names of other packages: a small one, installed from here, adds a score, a recipe, an engine and a tracker without a line of ours."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import lotto
from conftest import same_tensors, small_recipe
from lotto.cli.main import main
from lotto.core import registry
from lotto.core.errors import UsageError
from lotto.execution.serial import Serial
from lotto.execution.trackers import together, tracker
from lotto.lottery.plan import make_plan
from lotto.lottery.scoring import score_task
from lotto.pruning import Pruning, masks

CODE = """
import lotto


def snip(context):
    gradients = context.gradients()
    return {name: (weight * gradients[name]).abs() for name, weight in context.weights.items()}


def smallest(weight, start, generator):
    return -weight.abs()


def tiny():
    return lotto.recipes.get("mlp-mnist1d", steps="20it").replace(name="custom")


class Lines:
    def __call__(self, event):
        with open("events.txt", "a") as file:
            file.write(type(event).__name__ + "\\n")


def broken(event):
    raise RuntimeError("no network")


class Here(lotto.engine.Engine):
    given = ()

    def submit(self, assignment):
        self.given = (*self.given, assignment)

    def collect(self, report):
        first, *self.given = self.given
        return [(first, first.compute())]

    def close(self):
        self.given = ()


recipe = tiny().replace(name="a recipe of its own name")
"""
ENTRIES = """
[lotto.scores]
saliency = small_lottery_package.things:snip
smallest = small_lottery_package.things:smallest
gone = small_lottery_package.things:gone
[lotto.trackers]
lines = small_lottery_package.things:Lines
broken = small_lottery_package.things:broken
[lotto.recipes]
tiny-net = small_lottery_package.things:tiny
[lotto.engines]
here = small_lottery_package.things:Here
nowhere = small_lottery_package.things:Nowhere
"""


def install(site: Path, version: str = "1.0") -> None:
    """What pip leaves of a wheel: the package, and beside it what it is and which entry points it has."""
    package, about = site / "small_lottery_package", site / f"small_lottery_package-{version}.dist-info"
    package.mkdir(parents=True)
    about.mkdir()
    (package / "__init__.py").write_text("")
    (package / "things.py").write_text(CODE)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: small-lottery-package\nVersion: {version}\n")
    (about / "entry_points.txt").write_text(ENTRIES)
    (about / "top_level.txt").write_text("small_lottery_package\n")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    site = tmp_path / "site-packages"
    install(site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", f"{site}:{Path(lotto.__file__).parents[1]}")
    importlib.invalidate_caches()
    yield site
    for name in [n for n in sys.modules if n.startswith("small_lottery_package")]:
        del sys.modules[name]


def test_a_score_of_an_installed_package_is_a_name_like_ours(installed, store):
    recipe, options = small_recipe(), {"levels": 1, "replicates": 1, "controls": (), "engine": Serial(store)}
    found = lotto.imp(recipe, score="saliency", **options)
    things = importlib.import_module("small_lottery_package.things")
    assert same_tensors(
        found.replicates[0][1].mask, lotto.imp(recipe, score=things.snip, **options).replicates[0][1].mask
    )
    assert found.plan.scored
    assert found.plan.describe()["score"] == "saliency"
    weights, mask = recipe.initial(0), masks.ones(recipe)
    kept = lotto.pruning.prune(weights, mask, 0.5, "smallest")
    assert all(weights[n].abs()[m].max() <= weights[n].abs()[~m].min() for n, m in kept.items() if n == "fc1.weight")
    assert recipe.replace(pruning__score="smallest").pruning == Pruning(score="smallest")


def test_a_package_counts_in_keys_by_its_version(installed):
    recipe = small_recipe()
    task = score_task(recipe, "saliency", recipe.initial(0), masks.ones(recipe))
    assert "small_lottery_package 1.0" in str(task.description["score"])
    assert task.key is not None


def test_recipes_of_installed_packages_are_found_and_listed(installed, capsys):
    assert lotto.recipes.get("tiny-net").name == "tiny-net"
    assert lotto.recipes.get("tiny-net", steps="30it").steps == "30it"
    assert lotto.recipes.get("small_lottery_package.things:recipe").name == "a recipe of its own name"
    main(["recipes"])
    listed = capsys.readouterr().out
    assert "tiny-net" in listed
    assert "small-lottery-package" in listed
    with pytest.raises(UsageError, match=r"Unknown recipe 'tiny-nt'.*Did you mean 'tiny-net'"):
        lotto.recipes.get("tiny-nt")
    with pytest.raises(UsageError, match="returns one; got 'lotto"):
        lotto.recipes.get("lotto.recipe.presets:ENTRY_POINTS")


def test_unknown_and_broken_names_are_one_sentence(installed):
    with pytest.raises(
        UsageError,
        match=r"Choices: gone, grasp, magnitude, magnitude-increase, random, saliency, smallest, snip, synflow",
    ):
        make_plan(small_recipe(), score="salience")
    with pytest.raises(UsageError, match=r"score 'gone' of small-lottery-package cannot be imported \(AttributeError"):
        make_plan(small_recipe(), score="gone")


def test_ours_come_before_others_of_the_same_name_and_are_not_looked_for_elsewhere(installed, monkeypatch):
    about = next(installed.glob("*.dist-info"))
    (about / "entry_points.txt").write_text("[lotto.scores]\nmagnitude = small_lottery_package.things:smallest\n")
    recipe = small_recipe()
    weights, mask = recipe.initial(0), masks.ones(recipe)
    by_size = lotto.pruning.prune(weights, mask, 0.5, {n: weights[n].abs() for n in mask})
    monkeypatch.setattr(registry, "entry_points", None)
    assert same_tensors(lotto.pruning.prune(weights, mask, 0.5, "magnitude"), by_size)


@pytest.mark.extras
def test_the_command_takes_scores_by_their_names_and_by_a_file_in_this_folder(installed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_scores.py").write_text(CODE)
    tables = []
    # Two dense trainings, two scores, two levels: of the same code in a file the scores are others, the masks the same.
    counts = {"saliency": "6 computed, 0", "my_scores:snip": "2 computed, 4", "magnitude": "2 computed, 2"}
    for name in ("saliency", "my_scores:snip", "magnitude"):
        out, own = tmp_path / name.replace(":", "-"), ":" in name
        arguments = [
            "imp", "tiny-net", "--levels", "1", "--replicates", "2", "--controls", "none", "--jobs", "2" if own else "1",
            "--score", name, "--allocation", "layer", "--out", str(out), "--store", str(tmp_path / "store"),
        ]  # fmt: skip
        if own:  # a process that does not look for modules in this folder, and workers, which shall find the file too
            code = "import sys; sys.path.remove(''); from lotto.cli.main import main; main(sys.argv[1:])"
            command = [sys.executable, "-c", code, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stderr
            printed = done.stdout
        else:
            main(arguments)
            printed = capsys.readouterr().out
        ticket = lotto.Ticket.load(out / "ticket.safetensors")
        assert ticket.info["plan"]["score"] == name
        assert ticket.info["plan"]["scope"] == "layer"
        assert f"{counts[name]} remembered" in printed
        tables.append(ticket.mask)
    snip, own_snip, magnitude = tables
    assert same_tensors(snip, own_snip)
    assert not same_tensors(snip, magnitude)


def test_a_tracker_sees_every_event_and_one_that_fails_changes_nothing(installed, store, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    recipe, options = small_recipe(), {"levels": 1, "replicates": 1, "controls": ()}
    events: list = []
    usual = lotto.imp(recipe, progress=events.append, engine=Serial(store), **options)
    watched = lotto.imp(
        recipe, engine=Serial(lotto.Store(tmp_path / "other")), progress=together(tracker("lines"), tracker("broken")),
        **options,
    )  # fmt: skip
    assert same_tensors(watched.replicates[0][1].run.weights, usual.replicates[0][1].run.weights)
    assert (tmp_path / "events.txt").read_text().split() == [type(event).__name__ for event in events]
    assert caplog.text.count("The tracker 'broken' failed and is called no more: RuntimeError: no network") == 1
    with pytest.raises(UsageError, match=r"Unknown tracker 'lins'. Choices: broken, lines. Did you mean 'lines'"):
        tracker("lins")
    with pytest.raises(UsageError, match="A tracker is a function of an event"):
        tracker("lotto.execution.trackers:ENTRY_POINTS")


def test_the_command_tells_its_trackers(installed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(
        ["imp", "tiny-net", "--levels", "1", "--replicates", "1", "--controls", "none", "--jobs", "1", "--out", "out",
         "--tracker", "lines", "--tracker", "small_lottery_package.things:broken"]
    )  # fmt: skip
    lines = (tmp_path / "events.txt").read_text().split()
    assert lines.count("JobFinished") == lines.count("LevelFinished") == 2


def test_an_engine_of_an_installed_package_is_a_name_like_ours(installed, tmp_path, monkeypatch):
    store = lotto.Store(tmp_path / "store")
    engine = lotto.engine.make(3, store, stack=2, backend="here")
    assert (type(engine).__name__, engine.slots) == ("Here", 6)
    recipe, options = small_recipe(), {"levels": 1, "replicates": 1, "controls": ()}
    found = lotto.imp(recipe, engine=engine, **options)
    usual = lotto.imp(recipe, engine=Serial(lotto.Store(tmp_path / "other")), **options)
    assert same_tensors(found.replicates[0][1].run.weights, usual.replicates[0][1].run.weights)
    with pytest.raises(
        UsageError, match=r"Unknown engine 'her'. Choices: here, nowhere, processes, queue, ray, serial"
    ):
        lotto.engine.make(1, store, backend="her")
    with pytest.raises(UsageError, match="engine 'nowhere' of small-lottery-package cannot be imported"):
        lotto.engine.make(1, store, backend="nowhere")


@pytest.mark.parametrize("name", ["here", "my_engine:Here"])
def test_the_command_takes_an_engine_by_its_name(installed, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_engine.py").write_text(CODE)
    main(
        ["imp", "tiny-net", "--levels", "1", "--replicates", "1", "--controls", "none", "--jobs", "2", "--out", "out",
         "--backend", name, "--store", "store"]
    )  # fmt: skip
    found = [json.loads(path.read_text())["execution"] for path in tmp_path.glob("store/**/manifest.json")]
    assert {(how["engine"], how["workers"]) for how in found if "engine" in how} == {("here", 2)}
    sys.modules.pop("my_engine", None)
