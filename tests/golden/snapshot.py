"""What one checkout of lotto computes: keys, bits of runs, rows of experiments, what commands print.

    PYTHONPATH=CHECKOUT/src python snapshot.py FOLDER [STORE]

writes FOLDER/snapshot.json. ``STORE`` is a store that another checkout has filled: the same command must compute nothing.
Only public names are used, so that checkouts of different structure can be compared.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
warnings.simplefilter("ignore", DeprecationWarning)

import lotto  # noqa: E402
import models  # noqa: E402

try:
    from lotto.landscape.curvature.quadratic import QuadraticTask
    from lotto.lottery.averaging import AverageTask
except ImportError:  # the first edition
    from lotto.landscape.quadratic import QuadraticTask
    from lotto.particles import AverageTask
from lotto import SGD, Adam, Augment, Constant, Cosine, Job, Linear, Mask, MultiStep, Recipe, RMSprop  # noqa: E402

SMALL_IMP = (
    "imp", "mlp-mnist1d", "--steps", "60it", "--levels", "3", "--replicates", "2", "--control-levels", "2,3",
    "--rewind-to", "10it", "--jobs", "1", "--set", "evaluations=2",
)  # fmt: skip


def rings() -> lotto.data.Arrays:
    """Vectors of 12 numbers in 6 classes."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 6, 320)
    x = (np.random.default_rng(7).normal(size=(6, 12))[y] * 1.5 + generator.normal(size=(320, 12))).astype(np.float32)
    return lotto.data.Arrays(x[:240], y[:240], x[240:], y[240:], name="rings")


def images() -> lotto.data.Arrays:
    """Bytes of shape 3 x 8 x 8 in 4 classes."""
    generator = np.random.default_rng(1)
    y = generator.integers(0, 4, 200)
    x = generator.integers(0, 256, (200, 3, 8, 8), dtype=np.uint8) // 2 + (y * 30)[:, None, None, None].astype(np.uint8)
    return lotto.data.Arrays(x[:160], y[:160], x[160:], y[160:], name="images")


def recipes() -> dict[str, Recipe]:
    """Networks that each kind of learner trains."""
    vectors = Recipe(
        "mlp-24-16", rings(), SGD(0.1, momentum=0.9), Linear(), batch_size=20, steps="40it", init="kaiming-normal",
        evaluations=2, tolerance=5.0, name="small",
    )  # fmt: skip
    pictures = vectors.replace(data=images(), model="resnet-8-w4", optimizer=SGD(0.05, momentum=0.9), steps="24it")
    return {
        "perceptron": vectors,
        "plain SGD": vectors.replace(optimizer=SGD(0.1), schedule=MultiStep(milestones=("20it",))),
        "float64": vectors.replace(precision="float64", optimizer=SGD(0.1, weight_decay=1e-3)),
        "own": vectors.replace(model=models.plain, optimizer=Adam(1e-2), init="module"),
        "own, random": vectors.replace(model=models.Dropping, loss=models.smoothed, schedule=Cosine(warmup="5it")),
        "residual": pictures.replace(augment=Augment(crop=1, flip=True), norm_init="uniform"),
        "residual, bfloat16": pictures.replace(precision="bfloat16", validation=20),
        "vgg": pictures.replace(model="conv-2", optimizer=RMSprop(1e-3), schedule=Constant()),
        "normed": pictures.replace(model=models.normed, loss=models.smoothed),
        "subclasses": vectors.replace(model=models.ours, optimizer=models.Slower(0.1), schedule=models.Late()),
        "skipping": pictures.replace(model="resnet-8-w4", steps="220it", evaluations=1),
    }


def pruned(recipe: Recipe, rate: float, seed: int = 0) -> Mask:
    """A mask of the initial weights."""
    return lotto.prune(recipe.initial(seed), lotto.masks.ones(recipe), rate=rate)


def unread(recipe: Recipe) -> Mask:
    """A mask that leaves half of each layer's inputs unread."""
    keep = {name: mask.clone() for name, mask in lotto.masks.ones(recipe).items()}
    for mask in keep.values():
        if mask.shape[1] > 3:
            mask[:, : mask.shape[1] // 2] = False
    return Mask(keep)


def jobs() -> dict[str, Job]:
    """Trainings of every kind: dense and sparse, perceptron and convolutional, of a user's own."""
    made = {name: Job(recipe, init_seed=1, order_seed=2, keep=(7,)) for name, recipe in recipes().items()}
    for name, rate in (("perceptron", 0.9), ("plain SGD", 0.95), ("own", 0.5), ("residual", 0.8), ("normed", 0.5)):
        recipe = recipes()[name]
        made[f"{name}, sparse"] = Job(recipe, 3, 4, mask=pruned(recipe, rate, 3), keep=(0,))
    skipping = recipes()["skipping"]
    made["skipping, unread"] = Job(skipping, mask=unread(skipping))
    vectors = recipes()["perceptron"]
    start = lotto.train(vectors, to_step="10it", keep=["10it"]).state(10)
    for name, state in (("new optimizer", start.without_optimizer), ("old optimizer", start)):
        made[f"from a step, {name}"] = Job(vectors, order_seed=5, start=state, mask=pruned(vectors, 0.3), from_step=10)
    made["to a step"] = Job(vectors, to_step=20)
    made["score"] = Job(vectors.replace(pruning=lotto.Pruning(0.3, score=models.signed)), 8)
    return made


def bits(run: Any) -> dict[str, str]:
    """Hashes of a run's states and records."""

    def of(tensors: Mapping[str, torch.Tensor]) -> str:
        digest = hashlib.blake2b(digest_size=12)
        for name in sorted(tensors):
            tensor = tensors[name].detach().cpu().contiguous()
            digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    found = {"history": repr([sorted(record.items()) for record in run.history])}
    for step, state in sorted(run.states.items()):
        found[f"weights {step}"], found[f"optimizer {step}"] = of(state.weights), of(state.optimizer)
    return found


def runs(folder: Path) -> dict[str, dict[str, str]]:
    """Bits of runs alone and stacked."""
    alone = lotto.engine.make(1, lotto.Store(folder / "alone"))
    wanted = jobs()
    found = {name: bits(run) for name, run in zip(wanted, alone.run(list(wanted.values())), strict=True)}
    stacked = lotto.engine.make(1, lotto.Store(folder / "stacked"), stack=3)
    for name in ("perceptron", "own", "normed"):
        recipe = recipes()[name]
        several = [Job(recipe, i, i + 1, mask=pruned(recipe, 0.4 * i, i) if i else None, keep=(5,)) for i in range(3)]
        for i, run in enumerate(stacked.run(several)):
            found[f"{name}, stacked {i}"] = bits(run)
    return found


def keys() -> dict[str, str | None]:
    """Keys of jobs and tasks."""
    found = {name: job.key for name, job in jobs().items()}
    found |= {name: Job(lotto.recipes.get(name)).key for name in ("mlp-mnist1d", "conv-mnist1d")}
    recipe = recipes()["residual"]
    a, b, c = (recipe.initial(i) for i in range(3))
    mask = pruned(recipe, 0.5)
    tasks = {
        "path": lotto.landscape.PathTask(recipe, a, b, 5),
        "path, statistics": lotto.landscape.PathTask(recipe, a, b, 5, ("train", "test"), "recompute", 50),
        "plane": lotto.landscape.PlaneTask(recipe, a, b, c, 4),
        "spectrum": lotto.hessian.SpectrumTask(recipe, a, mask, 2, 4, 2),
        "quadratic": QuadraticTask(recipe, a, pruned(recipe, 0.99), [pruned(recipe, 0.995)], 50),
        "average": AverageTask(recipe, a),
    }
    return found | {name: task.key for name, task in tasks.items()}


def analyses() -> dict[str, Any]:
    """What tasks and analyses compute."""
    small, vectors = recipes()["residual"], recipes()["perceptron"]
    found: dict[str, Any] = {}
    for recipe in (small, vectors):
        a, b, c = (recipe.initial(i) for i in range(3))
        for policy in ("interpolate", "recompute"):
            path = lotto.evaluate_path(recipe, a, b, 5, ("test", "train"), policy)
            found[f"path {recipe.model} {policy}"] = [path.error, path.loss]
        found[f"plane {recipe.model}"] = lotto.evaluate_plane(recipe, a, b, c, 3).loss.tolist()
        found[f"spectrum {recipe.model}"] = lotto.hessian.SpectrumTask(
            recipe, a, pruned(recipe, 0.5), 2, 4, 2
        ).execute()
    result = lotto.imp(vectors, 3, 0.4, "5it", 2, engine=lotto.engine.make(1))
    found["imp"] = result.table().to_csv() + result.runs_table().drop(columns="seconds").to_csv()
    swamp = lotto.imp(small, 2, 0.5, replicates=1, controls=(), particles=2, engine=lotto.engine.make(1))
    found["particles"] = swamp.runs_table().drop(columns="seconds").to_csv()
    adaptive = lotto.imp(vectors, density=0.2, adaptive=True, replicates=2, engine=lotto.engine.make(1))
    found["adaptive"] = adaptive.trials_table().to_csv() + adaptive.table().to_csv()
    return found


def command(folder: Path, *arguments: str) -> str:
    """What a command prints, without times and paths."""
    environment = {**os.environ, "COLUMNS": "160", "LOTTO_STORE": str(folder / "store"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "lotto", *arguments],
        env=environment, capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    printed = f"{done.returncode}\n{done.stdout}\n{done.stderr}".replace(str(folder), "FOLDER")
    return re.sub(r" *\d+\.\d s\b", " TIME", printed)


def transcripts(folder: Path, filled: Path | None) -> dict[str, str]:
    """Three commands, their mistakes, and one on a store that another checkout filled."""
    out = ("--out", str(folder / "imp"))
    found = {
        "imp": command(folder, *SMALL_IMP, *out),
        "imp again": command(folder, *SMALL_IMP, *out),
        "report": command(folder, "report", str(folder / "imp")),
        "recipes": command(folder, "recipes"),
        "unknown": command(folder, "imp", "mlp-mnist"),
        "no rate": command(folder, "imp", "mlp-mnist1d", "--rate", "1.5"),
    }
    for paper in ("stabilizing", "unmasking"):
        found[f"{paper} claims"] = command(folder, "claims", paper, str(folder / paper))
    if filled is not None:
        found["imp again"] = command(folder, *SMALL_IMP, *out, "--store", str(filled))
    return found


def rows(folder: Path) -> dict[str, str]:
    """The rows of every experiment of both papers, and what the claims say of them."""
    for name, preset, more in (
        ("stabilizing.all", "mlp-mnist1d", ("--rewind-to", "0it,20it", "--set", "model=mlp-24-16")),
        ("unmasking.all", "mlp-mnist1d", ("--rewind-to", "10it", "--set", "model=mlp-24-16")),
        ("stabilizing.subnetworks", "conv-mnist1d", ("--rewind-to", "10it")),
        ("unmasking.projection", "conv-mnist1d", ("--rewind-to", "10it")),
    ):
        paper = name.partition(".")[0]
        printed = command(
            folder, "run", name, preset, "--steps", "60it", "--levels", "3", "--replicates", "2", "--points", "4",
            "--examples", "300", "--set", "evaluations=2", "--batch-size", "200", "--jobs", "1", "--out",
            str(folder / paper / preset), *more,
        )  # fmt: skip
        if not printed.startswith("0\n"):
            raise SystemExit(printed)
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.glob("*ing/*/*.csv"))}


def main(folder: Path, filled: Path | None) -> None:
    """Write the snapshot."""
    logging.disable()
    torch.set_num_threads(1)
    os.environ["LOTTO_STORE"] = str(folder / "default")
    os.environ.setdefault("LOTTO_DATA", str(folder / "data"))
    snapshot = {"keys": keys(), "runs": runs(folder), "analyses": analyses(), "rows": rows(folder)}
    snapshot["transcripts"] = transcripts(folder, filled)
    (folder / "snapshot.json").write_text(json.dumps(snapshot, indent=1, default=str))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
