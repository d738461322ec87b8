"""What trackers are told is what the runs say, whoever listens; the real packages write it to a local folder."""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Iterator

import pandas as pd
import pytest

import lotto
from conftest import same_tensors, small_recipe
from lotto.cli.main import main
from lotto.core.errors import DivergedError, UsageError
from lotto.execution import compute
from lotto.execution.engine import JobFinished
from lotto.execution.serial import Serial
from lotto.integrations.trackers import Tracker, Tracking, track
from lotto.integrations.trackers.tracking import OURS, plain_name
from lotto.training.loop import train

OPTIONS = {"levels": 1, "rate": 0.5, "replicates": 2, "controls": ("random",)}


class Recorder:
    """Keeps what it is told."""

    def __init__(self):
        self.calls: list[tuple] = []

    def start(self, name, config):
        self.calls.append(("start", name, config["model"]))

    def log(self, training, step, values):
        self.calls.append(("log", training, step, dict(values)))

    def artifact(self, path):
        self.calls.append(("artifact", path.name))

    def finish(self):
        self.calls.append(("finish",))


class Broken(Recorder):
    def log(self, training, step, values):
        super().log(training, step, values)
        raise OSError("the server is gone")


def expected(result) -> set[tuple[str, int, str, float]]:
    """Training, step, name and value of every number in the histories of a result, and of its levels."""
    found = set()
    for (replicate, level, kind), run in result.runs.items():
        name = f"replicate {replicate + 1}/" + ("dense" if level == 0 else f"level {level}")
        if level:
            name += "/50.0" if kind == "imp" else f"/{kind}"
        for record in run.history:
            found |= {(name, record["step"], key, value) for key, value in record.items() if key != "step"}
        if kind == "imp":
            levels = f"replicate {replicate + 1}/levels"
            found |= {(levels, level, "error", run.test_error), (levels, level, "density", 0.5**level)}
    return found


def numbers(calls) -> set[tuple[str, int, str, float]]:
    return {(call[1], call[2], name, v) for call in calls if call[0] == "log" for name, v in call[3].items()}


def test_a_tracker_is_told_of_every_number_once_trained_and_once_remembered(store):
    trained, remembered = Recorder(), Recorder()
    for recorder in (trained, remembered):
        with track(recorder) as watch:
            result = lotto.imp(small_recipe(), engine=Serial(store), progress=watch, **OPTIONS)
            watch.artifact("x/table.csv")
    assert trained.calls[0] == remembered.calls[0] == ("start", "small", "mlp-24-16")
    assert trained.calls[-2:] == remembered.calls[-2:] == [("artifact", "table.csv"), ("finish",)]
    assert numbers(remembered.calls) == expected(result)
    more = numbers(trained.calls) - expected(result)
    assert {name for *_, name, _ in more} <= {"loss"}
    assert numbers(trained.calls) >= expected(result)


def test_what_a_tracker_raises_is_said_once_and_changes_nothing(store, tmp_path, caplog):
    plain = lotto.imp(small_recipe(), engine=Serial(store), progress=False, **OPTIONS)
    broken = Broken()
    with track(broken) as watch:
        watched = lotto.imp(small_recipe(), engine=Serial(lotto.Store(tmp_path / "b")), progress=watch, **OPTIONS)
    assert same_tensors(plain.replicates[1][1].run.weights, watched.replicates[1][1].run.weights)
    assert [call[0] for call in broken.calls] == ["start", "log"]
    assert caplog.text.count("The tracker 'Broken' failed and is called no more: OSError: the server is gone") == 1


def test_a_training_that_diverges_logs_no_number_that_is_none(store, monkeypatch):
    def maybe(job, **how):
        if "level 1" in job.label:
            raise DivergedError("The loss became nan.", 30)
        return train(job, **how)

    monkeypatch.setattr(compute, "train", maybe)
    recorder = Recorder()
    with track(recorder) as watch:
        lotto.imp(small_recipe(), engine=Serial(store), progress=watch, **{**OPTIONS, "controls": ()})
    assert all(math.isfinite(value) for *_, value in numbers(recorder.calls))
    assert recorder.calls[-1] == ("finish",)


def test_trainings_of_one_name_are_told_apart_and_jobs_are_let_go(recipe):
    recorder = Recorder()
    jobs = [lotto.Job(recipe, order_seed=seed, to_step=2, label="again") for seed in range(3)]
    with Tracking(recorder, "r") as watch:
        for job in jobs:
            watch(JobFinished(job, lotto.Run((0, 2), [{"step": 2, "test_error": 1.0}], {}), True))
        assert watch._names == {}
    assert [call[1] for call in recorder.calls if call[0] == "log"] == ["again", "again (2)", "again (3)"]


def test_names_have_no_sign_that_trackers_refuse():
    assert plain_name("replicate 1 · level 2 · 64.0%") == "replicate 1/level 2/64.0"
    assert plain_name("k = 5 [x]··ä") == "k 5 x"
    assert plain_name("%") == "training"


def test_csv_is_a_tidy_table_beside_the_recipe_and_the_files(store, tmp_path):
    for _ in range(2):
        with track(f"csv:{tmp_path}/curves") as watch:
            result = lotto.imp(small_recipe(), engine=Serial(store), progress=watch, **OPTIONS)
            watch.artifact(result.save(tmp_path / "result", weights=False) / "table.csv")
    assert sorted(path.name for path in (tmp_path / "curves").iterdir()) == ["small", "small-2"]
    found = pd.read_csv(tmp_path / "curves" / "small-2" / "metrics.csv")
    assert set(found.itertuples(index=False, name=None)) == expected(result)
    assert (tmp_path / "curves" / "small" / "table.csv").read_bytes() == (
        tmp_path / "result" / "table.csv"
    ).read_bytes()
    assert '"model": "mlp-24-16"' in (tmp_path / "curves" / "small" / "config.json").read_text()


def test_what_is_no_tracker_is_one_sentence():
    for given, said in [
        ("csv", "The tracker csv writes into a folder: csv:FOLDER; got 'csv'"),
        ("wandb:", "The tracker wandb writes into a folder"),
        ("tensorbord", r"Unknown tracker 'tensorbord'. Choices: csv, mlflow, tensorboard, wandb. Did you mean"),
        (3, "A tracker is a name such as csv:FOLDER, or has start, log, artifact and finish; got 3"),
        ("math:pi", "A tracker is a function of an event"),
    ]:
        with pytest.raises(UsageError, match=said), track(given):
            pass


def test_the_command_takes_ours_and_a_class_of_the_users(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_tracker.py").write_text(
        "class Lines:\n"
        "    def start(self, name, config):\n        self.said = [name]\n"
        "    def log(self, training, step, values):\n        self.said.append(f'{training} {step}')\n"
        "    def artifact(self, path):\n        self.said.append(path.name)\n"
        "    def finish(self):\n        __import__('pathlib').Path('said.txt').write_text('\\n'.join(self.said))\n"
    )
    main(["imp", "mlp-mnist1d", "--levels", "1", "--replicates", "1", "--controls", "none", "--jobs", "1", "--steps",
          "20it", "--set", "evaluations=1", "--out", "out", "--track", "csv:curves", "--tracker", "my_tracker:Lines"])  # fmt: skip
    said = (tmp_path / "said.txt").read_text().splitlines()
    assert said[0] == "mlp-mnist1d"
    assert said[-4:] == ["table.csv", "runs.csv", "report.html", "ticket.safetensors"]
    rows = pd.read_csv("curves/mlp-mnist1d/metrics.csv")
    table = pd.read_csv("out/table.csv")
    levels = rows[(rows["training"] == "replicate 1/levels") & (rows["name"] == "error")]
    assert levels["value"].tolist() == table["error"].tolist()
    assert "computed" in capsys.readouterr().out


def tracked(name, store, folder):
    """A small result, told to a tracker by its real package."""
    with track(f"{name}:{folder}") as watch:
        result = lotto.imp(small_recipe(), engine=Serial(store), progress=watch, **OPTIONS)
        watch.artifact(result.save(folder.parent / "result", weights=False) / "table.csv")
    return result


@pytest.mark.extras
def test_tensorboard_reads_the_curves(store, tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from lotto.integrations.trackers import tensorboard

    monkeypatch.setattr(tensorboard, "OPEN", 2)  # files are closed and begun again meanwhile
    result = tracked("tensorboard", store, tmp_path / "curves")
    found = set()
    for folder in (tmp_path / "curves" / "small").rglob("*"):
        if folder.is_dir() and list(folder.glob("events*")):
            training = folder.relative_to(tmp_path / "curves" / "small").as_posix()
            events = accumulator.EventAccumulator(str(folder)).Reload()
            found |= {(training, e.step, n, e.value) for n in events.Tags()["scalars"] for e in events.Scalars(n)}
    wanted = {(t, s, n): v for t, s, n, v in expected(result)}
    got = {(t, s, n): v for t, s, n, v in found}
    assert {key: got[key] for key in wanted} == pytest.approx(wanted, rel=1e-6)  # they are kept in float32
    assert {n for t, s, n in set(got) - set(wanted)} <= {"loss"}


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_metrics_parameters_and_files(store, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    folder = tmp_path / "tracked"
    result = tracked("mlflow", store, folder)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["model"] == "mlp-24-16"
    found = {
        (*name.rpartition("/")[::2], at.step, at.value)
        for name in run.data.metrics
        for at in client.get_metric_history(run.info.run_id, name)
    }
    wanted = {(t, n, s, v) for t, s, n, v in expected(result)}
    assert wanted <= found
    assert {n for _, n, _, _ in found - wanted} <= {"loss"}
    assert [at.path for at in client.list_artifacts(run.info.run_id)] == ["table.csv"]


def history(content: bytes) -> Iterator[dict]:
    """What was logged together, of a file of Weights & Biases: records in blocks of 32 KiB, as LevelDB has them."""
    from wandb.proto import wandb_internal_pb2

    parts, at = b"", 7
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])  # after a checksum; 1 = whole, 4 = the last part
        parts, at = parts + content[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            if values := {i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item}:
                yield values


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_has_the_numbers_offline(store, tmp_path):
    pytest.importorskip("wandb")
    result = tracked("wandb", store, tmp_path / "tracked")
    (path,) = (tmp_path / "tracked").glob("wandb/offline-run-*/*.wandb")
    until = time.monotonic() + 20
    while not (told := list(history(path.read_bytes()))) and time.monotonic() < until:
        time.sleep(0.1)  # a process of its own writes the last of it
    found = set()
    for values in told:
        for key, value in values.items():
            training, _, name = key.rpartition("/")
            if training and name != "step":
                found.add((training, values[f"{training}/step"], name, value))
    wanted = {(training.replace(".", "_"), *rest) for training, *rest in expected(result)}
    assert wanted <= found
    assert {n for _, _, n, _ in found - wanted} <= {"loss"}
    assert (path.parent / "files" / "table.csv").read_bytes() == (tmp_path / "result" / "table.csv").read_bytes()


def test_ours_are_trackers():
    from lotto.integrations.trackers.csv_folder import CsvTracker

    assert isinstance(CsvTracker("x"), Tracker)
    assert set(OURS) == {"csv", "tensorboard", "mlflow", "wandb"}
