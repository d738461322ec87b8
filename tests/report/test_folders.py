"""No experiment takes the place of another in a folder of results."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

import lotto
from conftest import small_recipe
from lotto.core import files
from lotto.core.errors import StorageError
from lotto.execution.serial import Serial
from lotto.experiments.options import Options
from lotto.papers import EXPERIMENTS
from lotto.report import plots
from lotto.report.experiments import save_experiment
from lotto.report.folders import LOCK, Place, own_folder, saving
from lotto.report.save import save_result


@pytest.fixture(autouse=True)
def _nothing_is_drawn(monkeypatch):
    monkeypatch.setattr(plots, "svg", lambda figure, **_: "<svg></svg>")


@pytest.fixture
def imp(store):
    return lambda **options: lotto.imp(small_recipe(), replicates=1, controls=(), engine=Serial(store), **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_options_write_the_same_folder_and_others_a_new_one(imp, tmp_path):
    first = save_result(imp(levels=1), tmp_path / "out", "c", 1.0)
    before = contents(tmp_path / "out")
    assert save_result(imp(levels=1), tmp_path / "out", "c", 1.0) == first
    assert contents(tmp_path / "out") == before
    for number, options in enumerate(({"levels": 2}, {"levels": 1, "seed": 1}, {"levels": 1, "rate": 0.5}), 2):
        assert save_result(imp(**options), tmp_path / "out", "c", 1.0)["result"].parent.name == f"out-{number}"
    assert save_result(imp(levels=2), tmp_path / "out", "c", 1.0)["result"].parent.name == "out-2"
    assert contents(tmp_path / "out") == before


def test_the_device_is_no_other_experiment_but_the_data_are(store, tmp_path):
    def save(recipe):
        result = lotto.imp(recipe, levels=1, replicates=1, controls=(), engine=Serial(store))
        return save_result(result, tmp_path / "out", "c", 1.0)["result"].parent.name

    recipe = small_recipe()
    assert [save(recipe), save(recipe.replace(device="cpu"))] == ["out", "out"]
    changed = lotto.data.Arrays(*(part[name] * 1.5 if part is recipe.data.x else part[name]
                                  for name in ("train", "test") for part in (recipe.data.x, recipe.data.y)), name="rings")  # fmt: skip
    assert save(recipe.replace(data=changed)) == "out-2"


@pytest.mark.parametrize("name", ["result.json", "table.csv", "report.html", "ticket.safetensors"])
def test_files_of_others_stay(imp, tmp_path, name):
    (tmp_path / name).write_text("mine")
    saved = save_result(imp(levels=1), tmp_path, "c", 1.0)
    assert saved["result"].parent.name == f"{tmp_path.name}-2"
    assert (tmp_path / name).read_text() == "mine"


def test_experiments_lie_side_by_side_but_not_on_each_other(imp, store, tmp_path):
    experiment = EXPERIMENTS["stabilizing.distances"]
    folder = tmp_path / "out"

    def save(**options):
        asked = Options(small_recipe(), replicates=1, levels=1, **options)
        return save_experiment(experiment, asked, experiment.run(asked, Serial(store)), folder, "c", 1.0).parent.name

    assert [save(), save(seed=1), save(), save(seed=1)] == ["out", "out-2", "out", "out-2"]
    assert save_result(imp(levels=1), folder, "c", 1.0)["result"].parent.name == "out-3"
    assert save(seed=2) == "out-4"


def test_two_processes_do_not_mix_theirs(tmp_path):
    def save(number):
        with saving(tmp_path / "out", [Place("a.json", {"of": number}, ["b"])]) as folder:
            files.write_json(folder / "a.json", {"made_by": {"of": number}})
            (folder / "b").write_text(str(number))

    threads = [threading.Thread(target=save, args=(number % 5,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {folder.name: (json.loads((folder / "a.json").read_text())["made_by"]["of"], (folder / "b").read_text())
             for folder in tmp_path.glob("out*")}  # fmt: skip
    assert sorted(found) == ["out", "out-2", "out-3", "out-4", "out-5"]
    assert sorted(found.values()) == [(n, str(n)) for n in range(5)]
    assert not list(tmp_path.rglob(LOCK))


def test_folders_without_a_name_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Place("a.json", {}, [])
    assert own_folder(Path(), [place]) == tmp_path
    (tmp_path / "a.json").write_text("{}")
    assert own_folder(Path(), [place]) == tmp_path.with_name(f"{tmp_path.name}-2")


def test_a_file_in_the_folders_place_is_a_sentence(imp, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(StorageError, match=r"Cannot write to .*out: "):
        save_result(imp(levels=1), tmp_path / "out", "c", 1.0)
