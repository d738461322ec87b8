"""What is public, each argument of it given every value of the pool: is it taken, refused in a sentence, or does it break?

``python tests/fuzz/surface.py`` counts all of it; the tests draw a sample.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pool import LONG, POOL
from torch import nn

import lotto
import lotto.execution.factory
import lotto.landscape.curvature as curvature
import lotto.landscape.curvature.pruning_limit as pruning_limit
import lotto.landscape.permutation as permutation
import lotto.landscape.subspace as subspace
import lotto.papers as papers
import lotto.recipe
import lotto.recipe.initializers
import lotto.recipe.pretrained
from lotto.core import statistics, weights
from lotto.core.errors import LottoError
from lotto.experiments import claims, results
from lotto.inference import export
from lotto.landscape import path, plane, stability
from lotto.lottery import gap_spread, score_weights
from lotto.lottery.plan import make_plan
from lotto.pruning import dynamic, masks
from lotto.report import experiments as report_experiments
from lotto.report import save as report_save

SECONDS = 20
"""No call of the surface takes longer."""


class Context:
    """Small right arguments, made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def x(self) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(48, 6)).astype("float32")

    @cached_property
    def y(self) -> np.ndarray:
        return np.arange(48) % 3

    @cached_property
    def arrays(self) -> Any:
        return lotto.data.Arrays(self.x[:32], self.y[:32], self.x[32:], self.y[32:])

    @cached_property
    def recipe(self) -> Any:
        return lotto.Recipe("mlp-5-4", self.arrays, lotto.SGD(0.1), batch_size=8, steps="4it", evaluations=1)

    @cached_property
    def store(self) -> Any:
        return lotto.Store(self.folder / "store")

    @cached_property
    def engine(self) -> Any:
        return lotto.engine.make(1, self.store)

    @cached_property
    def run(self) -> Any:
        return lotto.train(self.recipe, keep=[1], store=self.store)

    @cached_property
    def other(self) -> Any:
        return lotto.train(self.recipe, 1, store=self.store)

    @cached_property
    def third(self) -> Any:
        return lotto.train(self.recipe, 2, store=self.store)

    @cached_property
    def mask(self) -> Any:
        return lotto.pruning.prune(self.run.weights, masks.ones(self.recipe), rate=0.5)

    @cached_property
    def ticket(self) -> Any:
        return lotto.Ticket(masks.apply(self.run.at(1), self.mask), self.mask, 1, {"order_seed": 0})

    @cached_property
    def result(self) -> Any:
        return lotto.imp(self.recipe, 1, replicates=1, controls=(), jobs=1, store=self.store)

    @cached_property
    def spectrum(self) -> Any:
        return curvature.spectrum(self.recipe, self.run.weights, self.mask, steps=4, probes=1)

    @cached_property
    def hessian(self) -> Any:
        return curvature.Hessian(self.recipe, self.run.weights, self.mask)

    @cached_property
    def path(self) -> Any:
        return path.evaluate_path(self.recipe, self.run.weights, self.other.weights, points=3)

    @cached_property
    def images(self) -> Path:
        from PIL import Image

        root = self.folder / "images"
        for split in ("train", "test"):
            for name in ("a", "b"):
                (root / split / name).mkdir(parents=True, exist_ok=True)
                for i in range(4):
                    Image.new("RGB", (8, 8), (i, 40 * (name == "a"), 0)).save(root / split / name / f"{i}.png")
        return root

    @cached_property
    def module(self) -> nn.Module:
        made = self.recipe.build()
        made.load_state_dict(dict(masks.apply(self.run.weights, self.mask)))
        return made

    @cached_property
    def options(self) -> Any:
        return papers.Options(self.recipe, replicates=1, levels=1, points=2)

    @cached_property
    def rows(self) -> Any:
        return papers.get("stabilizing.sparsity").run(self.options, self.engine)

    @cached_property
    def saved(self) -> Path:
        folder = self.folder / "saved"
        report_save.save_result(self.result, folder, "lotto imp", 1.0)
        return folder

    @cached_property
    def ticket_file(self) -> Path:
        return self.ticket.save(self.folder / "ticket.safetensors")

    @cached_property
    def mask_file(self) -> Path:
        self.mask.save(self.folder / "mask.safetensors")
        return self.folder / "mask.safetensors"


Call = tuple[Callable[..., Any], Callable[[Context], dict[str, Any]]]


def _fields(kind: type, /, **given: Callable[[Context], Any]) -> Call:
    """A dataclass: its own defaults, but for what is given."""

    def arguments(c: Context) -> dict[str, Any]:
        made = {}
        for f in dataclasses.fields(kind):
            if f.name in given:
                made[f.name] = given[f.name](c)
            elif f.default is not dataclasses.MISSING:
                made[f.name] = f.default
            elif f.default_factory is not dataclasses.MISSING:
                made[f.name] = f.default_factory()
        return made

    return kind, arguments


def _with(function: Callable[..., Any], /, **given: Any) -> Call:
    """A function: values, or functions of the context that make them."""
    return function, lambda c: {n: v(c) if callable(v) else v for n, v in given.items()}


def _surface() -> dict[str, Call]:
    recipe = lambda c: c.recipe  # noqa: E731
    trained = lambda c: c.run.weights  # noqa: E731
    mask = lambda c: c.mask  # noqa: E731
    two = {"a": trained, "b": lambda c: c.other.weights}
    stable = {"engine": lambda c: c.engine, "progress": None, "init_seed": 0, "start": None}
    found: dict[str, Call] = {
        "Recipe": _fields(
            lotto.Recipe,
            model=lambda c: "mlp-5-4",
            data=lambda c: c.arrays,
            steps=lambda c: "4it",
            batch_size=lambda c: 8,
        ),
        "replace": (
            lambda c_, **k: dataclasses.replace(c_, **k),
            lambda c: {"c_": c.recipe} | {f.name: getattr(c.recipe, f.name) for f in dataclasses.fields(c.recipe)},
        ),
        "Pretrained": _with(lotto.recipe.pretrained.Pretrained, weights=lambda c: dict(c.run.weights), new=()),
        "Recipe.replace": (
            lambda **k: Context.shared.recipe.replace(**k),
            lambda c: {
                "optimizer__lr": 0.1,
                "optimizer__momentum": 0.5,
                "schedule__kind": "cosine",
                "pruning__rate": 0.2,
                "augment__flip": True,
                "model__x": 1,
            },
        ),
        "Recipe.step": _with(lambda c_, **k: c_.step(**k), c_=recipe, value="1it"),
        "Recipe.learning_rate": _with(lambda c_, **k: c_.learning_rate(**k), c_=recipe, step=1),
        "Recipe.build": _with(lambda c_, **k: c_.build(**k), c_=recipe, seed=1),
        "Recipe.initial": _with(lambda c_, **k: c_.initial(**k), c_=recipe, seed=1),
        "recipes.get": _with(lotto.recipes.get, name="mlp-mnist1d"),
        "models.build": _with(lotto.models.build, name="mlp-5-4", shape=(6,), classes=3),
        "models.transformers_model": _with(
            lotto.models.transformers_model, model=lambda c: lambda: torch.nn.Linear(6, 3), architecture=None
        ),
        "Pruning": _fields(lotto.pruning.Pruning),
        "Plan": _fields(lotto.Plan),
        "Geometric": _with(lotto.pruning.Geometric, rate=0.2, levels=3),
        "ToDensity": _with(lotto.pruning.ToDensity, density=0.2, rate=None),
        "OneShot": _with(lotto.pruning.OneShot, density=0.2, like_levels=None),
        "Explicit": _with(lotto.pruning.Explicit, densities=(0.5, 0.2)),
        "Cubic": _with(lotto.pruning.Cubic, density=0.2, levels=3, start=1.0),
        "Adaptive": _with(lotto.pruning.Adaptive, density=0.2, levels=None),
        "to_density": _with(
            lotto.pruning.to_density, rule=lambda c: lotto.pruning.Pruning(), mask=lambda c: c.mask, density=0.2
        ),
        "densities_of": _with(
            lotto.pruning.densities_of,
            schedule=lambda c: lotto.pruning.Geometric(0.2, 2),
            rule=lambda c: lotto.pruning.Pruning(),
            mask=lambda c: c.mask,
        ),
        **{k.__name__: _fields(k, lr=lambda c: 0.1) for k in (lotto.SGD, lotto.Adam, lotto.AdamW, lotto.RMSprop)},
        "TorchOptimizer": _with(lotto.recipe.TorchOptimizer, of=lambda c: torch.optim.NAdam, lr=0.1, groups=None),
        "Metric": _with(
            lotto.recipe.Metric, compute=lambda c: lambda outputs, targets: 1.0, direction="down", best=None, unit=""
        ),
        **{
            k.__name__: _fields(k)
            for k in (lotto.Constant, lotto.MultiStep, lotto.Linear, lotto.Cosine, lotto.Exponential)
        },
        "factor": _with(lotto.Cosine(warmup="1it").factor, step=1, total=10, per_epoch=4),
        "Augment": _fields(lotto.data.Augment),
        "augment": _with(lotto.data.Augment(1, True), x=lambda c: torch.zeros(2, 3, 4, 4), seed=0, step=0),
        "Arrays": _with(
            lotto.data.Arrays,
            x_train=lambda c: c.x[:32],
            y_train=lambda c: c.y[:32],
            x_test=lambda c: c.x[32:],
            y_test=lambda c: c.y[32:],
            name="abc",
        ),
        "Arrays of bytes": _with(
            lotto.data.Arrays,
            x_train=lambda c: np.zeros((4, 1, 2, 2), "uint8"),
            y_train=lambda c: c.y[:4],
            x_test=lambda c: np.zeros((2, 1, 2, 2), "uint8"),
            y_test=lambda c: c.y[:2],
            mean=(0.5,),
            std=(0.5,),
        ),
        "Arrays.batches": _with(
            lambda c_, **k: list(c_.batches(**k)),
            c_=lambda c: c.arrays,
            seed=0,
            start=0,
            stop=2,
            batch_size=4,
            augment=None,
            feature_major=False,
        ),
        "Arrays.evaluation": _with(
            lambda c_, **k: list(c_.evaluation(**k)), c_=lambda c: c.arrays, split="test", batch_size=8
        ),
        "Arrays.hold_out": _with(lambda c_, **k: c_.hold_out(**k), c_=lambda c: c.arrays, count=4),
        "ImageFolder": _with(
            lotto.data.ImageFolder,
            path=lambda c: c.images,
            size=8,
            workers=0,
            shorter=None,
            random_crop=False,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        "data.load": _with(lotto.data.load, name="mnist1d", progress=None),
        "initial_weights": _with(
            lotto.recipe.initializers.initial_weights,
            module=lambda c: c.module,
            init="kaiming-normal",
            norm_init="ones",
            seed=0,
        ),
        "imp": _with(
            lotto.imp,
            recipe=recipe,
            levels=1,
            rate=0.3,
            rewind_to="1it",
            replicates=1,
            controls=(),
            control_levels=None,
            density=None,
            one_shot=False,
            after="weights",
            order="shared",
            rewind_optimizer=False,
            finetune_lr=None,
            seed=0,
            adaptive=False,
            particles=1,
            start=None,
            engine=lambda c: c.engine,
            jobs=1,
            store=lambda c: c.store,
            progress=None,
        ),
        "imp with jobs": _with(
            lotto.imp, recipe=recipe, levels=1, replicates=1, controls=(), jobs=1, store=lambda c: c.store
        ),
        "imp of density": _with(
            lotto.imp,
            recipe=recipe,
            density=0.7,
            replicates=1,
            controls=("random",),
            control_levels=(1,),
            engine=lambda c: c.engine,
        ),
        "make_plan": _with(make_plan, recipe=recipe, levels=2, adaptive=False, one_shot=False, particles=2),
        "make_plan of a plan": _with(make_plan, recipe=recipe, plan=lambda c: lotto.Plan(2), restart_dense=False),
        "make_plan of a schedule": _with(make_plan, recipe=recipe, schedule=lambda c: lotto.pruning.Cubic(0.2, 2)),
        "make_plan of densities": _with(make_plan, recipe=recipe, densities=(0.5, 0.2)),
        "result.ticket": _with(lambda c_, **k: c_.ticket(**k), c_=lambda c: c.result, level=1, replicate=0),
        "result.sparsest_matching": _with(
            lambda c_, **k: c_.sparsest_matching(**k), c_=lambda c: c.result, replicate=0
        ),
        "train": _with(
            lotto.train,
            recipe=recipe,
            init_seed=0,
            order_seed=0,
            mask=mask,
            start=None,
            from_step="0it",
            keep=["1it"],
            to_step=None,
            engine=None,
            store=lambda c: c.store,
            progress=None,
        ),
        "train from weights": _with(
            lotto.train,
            recipe=recipe,
            start=lambda c: c.run.at(1),
            from_step="1it",
            mask=None,
            engine=lambda c: c.engine,
        ),
        "train from a ticket": _with(
            lotto.train, recipe=recipe, start=lambda c: c.ticket, from_step=0, engine=lambda c: c.engine
        ),
        "train with a mask that changes": _with(
            lotto.train,
            recipe=recipe,
            mask=mask,
            sparsity=lambda c: lotto.DynamicSparsity("rigl", every=1),
            store=lambda c: c.store,
        ),
        "DynamicSparsity": _with(
            lotto.DynamicSparsity, kind="rigl", every=1, stop=3, begin=0, fraction=0.3, decay="cosine"
        ),
        "DynamicSparsity, gradual": _with(
            lotto.DynamicSparsity, kind="gradual", density=0.5, initial_density=0.8, allocation="layer"
        ),
        "job of DynamicSparsity": _with(
            lambda recipe, mask, **k: lotto.Job(recipe, mask=mask, sparsity=lotto.DynamicSparsity(**k)),
            recipe=recipe,
            mask=mask,
            kind="set",
            every=1,
            stop=3,
            begin=0,
            fraction=0.3,
        ),
        "run.mask_at": _with(lambda c_, **k: c_.mask_at(**k), c_=lambda c: c.run, step=1),
        "exchange": _with(
            dynamic.exchange,
            weights=trained,
            mask=mask,
            counts={"fc1.weight": 1, "fc2.weight": 0, "fc3.weight": 1},
            growth=trained,
        ),
        "exchange_counts": _with(dynamic.exchange_counts, mask=mask, fraction=0.3),
        "random_growth": _with(dynamic.random_growth, mask=mask, seed=0, step=1),
        "thinned": _with(dynamic.thinned, weights=trained, mask=mask, density=0.3, allocation="layer"),
        "Job": _fields(lotto.Job, recipe=recipe),
        "State": _with(lotto.State, weights=trained, optimizer={}),
        "run.at": _with(lambda c_, **k: c_.at(**k), c_=lambda c: c.run, step=1),
        "evaluate": _with(lotto.evaluate, recipe=recipe, weights=trained, split="test"),
        "prune": _with(
            lotto.pruning.prune,
            weights=trained,
            mask=lambda c: masks.ones(c.recipe),
            rate=0.2,
            score="magnitude",
            scope="global",
            rates=None,
            start=trained,
            seed=0,
        ),
        "prune to a density": _with(
            lotto.pruning.prune,
            weights=trained,
            mask=lambda c: masks.ones(c.recipe),
            density=0.5,
            score=lambda c: {name: w.abs() for name, w in c.run.weights.items() if name in masks.ones(c.recipe)},
            allocation="layer",
            pattern=None,
        ),
        "score_weights": _with(
            score_weights,
            recipe=recipe,
            weights=trained,
            mask=mask,
            score="magnitude",
            start=trained,
            seed=0,
            engine=lambda c: c.engine,
        ),
        "Mask": _with(lotto.Mask, tensors=mask),
        "Mask.save": _with(lambda c_, **k: c_.save(**k), c_=mask, path=lambda c: c.folder / "m.safetensors"),
        "Mask.load": _with(lotto.Mask.load, path=lambda c: c.mask_file),
        "masks.ones": _with(masks.ones, model=recipe, exclude=()),
        "masks.prunable_names": _with(masks.prunable_names, model=lambda c: c.module, exclude=()),
        "masks.apply": _with(masks.apply, weights=trained, mask=mask),
        "masks.random_like": _with(masks.random_like, mask=mask, seed=0),
        **{
            f"masks.{n}": _with(getattr(masks, n), mask=mask)
            for n in ("count", "size", "density", "layer_densities", "empty_layers")
        },
        "masks.check_fits": _with(masks.check_fits, mask=mask, weights=trained),
        "masks.layer_of": _with(masks.layer_of, name="fc1.weight"),
        "masks.shared_names": _with(masks.shared_names, model=lambda c: c.module),
        "Ticket": _with(
            lambda **k: lotto.Ticket(**k).save(Context.shared.folder / "t.safetensors"),
            start=lambda c: c.ticket.start,
            mask=mask,
            rewind_step=0,
            info={},
        ),
        "Ticket.save": _with(
            lambda c_, **k: c_.save(**k), c_=lambda c: c.ticket, path=lambda c: c.folder / "t.safetensors"
        ),
        "Ticket.load": _with(lotto.Ticket.load, path=lambda c: c.ticket_file),
        **{f"weights.{n}": _with(getattr(weights, n), **two, mask=mask) for n in ("distance", "angle")},
        "weights.norm": _with(weights.norm, a=trained, mask=mask),
        "weights.lerp": _with(weights.lerp, **two, t=0.5),
        "weights.mean": _with(weights.mean, networks=lambda c: [c.run.weights, c.other.weights]),
        "weights.clone": _with(weights.clone, weights=trained),
        "weights.digest": _with(weights.digest, weights=trained),
        "weights.restrict": _with(weights.restrict, weights=trained, names=["fc1.weight"]),
        "weights.first_non_finite": _with(weights.first_non_finite, weights=trained, leave=()),
        "weights.check_alike": _with(weights.check_alike, **two),
        "barrier": _with(
            path.barrier, recipe=recipe, **two, points=2, split="test", baseline="mean", batchnorm="interpolate"
        ),
        "evaluate_path": _with(
            path.evaluate_path,
            recipe=recipe,
            **two,
            points=2,
            splits=("test",),
            batchnorm="interpolate",
            examples=8,
            on_step=None,
        ),
        "PathTask": _with(
            path.PathTask,
            recipe=recipe,
            **two,
            points=2,
            splits=("test",),
            batchnorm="interpolate",
            examples=8,
            label="abc",
        ),
        "Path.barrier": _with(
            lambda c_, **k: c_.barrier(**k), c_=lambda c: c.path, baseline="mean", split="test", what="error"
        ),
        "unit_groups": _with(permutation.unit_groups, recipe=recipe),
        "random_permutation": _with(
            permutation.random_permutation, groups=lambda c: permutation.unit_groups(c.recipe), seed=0
        ),
        "Permutation": _with(
            permutation.Permutation,
            groups=lambda c: permutation.unit_groups(c.recipe)[:1],
            orders=((4, 3, 2, 1, 0),),
        ),
        "permuted": _with(
            permutation.permuted,
            permutation=lambda c: permutation.random_permutation(permutation.unit_groups(c.recipe)),
            tensors=trained,
        ),
        "match_units": _with(
            permutation.match_units, recipe=recipe, **two, method="activations", examples=8, seed=0, engine=None
        ),
        "MatchTask": _with(
            permutation.MatchTask, recipe=recipe, **two, method="weights", examples=8, seed=0, label="abc"
        ),
        "evaluate_plane": _with(
            plane.evaluate_plane,
            recipe=recipe,
            **two,
            c=lambda c: c.third.weights,
            points=2,
            margin=0.25,
            split="test",
            examples=8,
            on_step=None,
        ),
        "instability": _with(
            stability.instability,
            recipe=recipe,
            from_step="1it",
            mask=mask,
            order_seeds=(1, 2),
            points=2,
            splits=("test",),
            examples=8,
            **stable,
        ),
        "stability_to_pruning": _with(
            stability.stability_to_pruning, recipe=recipe, mask=mask, from_step="1it", order_seeds=(1, 2), **stable
        ),
        "stability_to_data_order": _with(
            stability.stability_to_data_order, recipe=recipe, mask=mask, from_step="1it", order_seeds=(1, 2), **stable
        ),
        "project": _with(subspace.project, weights=trained, mask=mask),
        "distance_to": _with(subspace.distance_to, weights=trained, mask=mask),
        "random_direction": _with(subspace.random_direction, mask=mask, seed=0),
        "perturb": _with(subspace.perturb, weights=trained, mask=mask, length=1.0, seed=0),
        "curvature.top": _with(
            curvature.top,
            recipe=recipe,
            weights=trained,
            mask=mask,
            k=1,
            examples=8,
            tolerance=1e-2,
            iterations=10,
            seed=0,
        ),
        "curvature.spectrum": _with(
            curvature.spectrum, recipe=recipe, weights=trained, mask=mask, steps=2, probes=1, examples=8, seed=0
        ),
        "curvature.limits": _with(
            curvature.limits,
            recipe=recipe,
            weights=trained,
            mask=mask,
            epsilon=0.1,
            steps=2,
            probes=1,
            examples=lambda c: c.recipe.arrays.size(),
            seed=0,
        ),
        "curvature.pruned_block": _with(
            curvature.pruned_block,
            recipe=recipe,
            weights=trained,
            mask=mask,
            cut=lambda c: lotto.pruning.prune(c.run.weights, c.mask, 0.5),
            probes=1,
            examples=8,
            seed=0,
        ),
        "Hessian": _with(curvature.Hessian, recipe=recipe, weights=trained, mask=mask, split="train", examples=8),
        "Hessian @": _with(
            lambda c_, vector: c_ @ vector, c_=lambda c: c.hessian, vector=lambda c: np.ones(c.hessian.size)
        ),
        "Spectrum.density": _with(
            lambda c_, **k: c_.density(**k), c_=lambda c: c.spectrum, at=lambda c: np.zeros(3), width=0.1
        ),
        "Spectrum.mean": _with(lambda c_, **k: c_.mean(**k), c_=lambda c: c.spectrum, function=lambda c: np.exp),
        "largest_prunable": _with(
            pruning_limit.largest_prunable,
            spectrum=lambda c: c.spectrum,
            weights=trained,
            mask=mask,
            epsilon=0.1,
            kind="magnitude",
        ),
        "compact": _with(lotto.inference.compact, module=lambda c: c.module, example=lambda c: torch.zeros(2, 6)),
        "sparse_rows": _with(lotto.inference.sparse_rows, module=lambda c: c.module, below=0.9),
        "sparse_convolutions": _with(lotto.inference.sparse_convolutions, module=lambda c: c.module, below=0.9),
        "sparse_network": _with(
            lotto.inference.sparse_network, module=lambda c: c.module, example=lambda c: torch.zeros(2, 6), below=0.9
        ),
        "sweep": _with(
            lotto.sweep,
            source=lambda c: c.module,
            data=lambda c: torch.zeros(2, 6),
            densities=[0.2],
            levels=None,
            replicate=None,
            forms=["dense"],
            batches=[1],
            threads=1,
            store=lambda c: c.store,
            progress=False,
        ),
        "sweep of a result": _with(
            lotto.sweep, source=lambda c: c.result, data=None, levels=[1], replicate=0, forms=["dense"], batches=[1]
        ),
        "to_onnx": _with(
            lotto.inference.to_onnx,
            module=lambda c: c.module,
            example=lambda c: torch.zeros(2, 6),
            path=lambda c: c.folder / "network.onnx",
        ),
        "to_torchscript": _with(
            lotto.inference.to_torchscript,
            module=lambda c: c.module,
            example=lambda c: torch.zeros(2, 6),
            path=lambda c: c.folder / "network.ts",
        ),
        "load_trained": _with(export.load_trained, path=lambda c: c.saved),
        "engine.make": _with(
            lotto.execution.factory.make,
            jobs=1,
            store=lambda c: c.store,
            threads=1,
            stack=1,
            device="cpu",
            backend="serial",
        ),
        "engine.run": _with(
            lambda c_, **k: c_.run(**k), c_=lambda c: c.engine, jobs=lambda c: [lotto.Job(c.recipe)], progress=None
        ),
        "Store": _with(lotto.Store, root=lambda c: c.folder / "s"),
        "Options": _with(
            papers.Options,
            recipe=recipe,
            replicates=1,
            rewind_to=("0it",),
            levels=1,
            seed=0,
            orders=2,
            points=2,
            examples=8,
            eval_levels=(1,),
        ),
        "papers.get": _with(papers.get, name="stabilizing.distances"),
        "papers.select": _with(papers.select, name="stabilizing.all"),
        "papers.claims_of": _with(papers.claims_of, paper="stabilizing"),
        "papers.check_claims": _with(papers.check_claims, claims=lambda c: papers.claims_of("stabilizing"), groups=[]),
        "experiment.run": _with(
            papers.get("stabilizing.sparsity").run,
            options=lambda c: c.options,
            engine=lambda c: c.engine,
            progress=None,
        ),
        "experiment.options": _with(
            papers.get("stabilizing.sparsity").options, recipe=recipe, given=lambda c: {"replicates": 1, "levels": 1}
        ),
        "interval": _with(statistics.interval, values=[1.0, 2.0]),
        "decide": _with(statistics.decide, values=[1.0, 2.0], threshold=0.5, below=True),
        "bound": _with(statistics.bound, values=[1.0, 2.0], side="upper", confidence=0.9),
        "p_value": _with(statistics.p_value, values=[1.0, 2.0], threshold=0.5, below=True),
        "match": _with(statistics.match, gaps=[1.0, 2.0], tolerance=0.5, confidence=0.9),
        "holm": _with(statistics.holm, p_values=[0.1, 0.2]),
        "confidence_per_look": _with(statistics.confidence_per_look, first=3, confidence=0.95),
        "mcnemar": _with(statistics.mcnemar, first_only=1, second_only=2),
        "power_of": _with(statistics.power_of, replicates=3, std=0.1, distance=0.2, confidence=0.95),
        "replicates_needed": _with(
            statistics.replicates_needed, std=0.1, tolerance=0.2, gap=0.0, power=0.8, confidence=0.95
        ),
        "gap_spread": _with(
            gap_spread, recipe=recipe, rewind_to="1it", replicates=2, seed=0, store=lambda c: c.store, progress=False
        ),
        "results.read": _with(results.read, folder=lambda c: c.folder),
        "results.read_below": _with(results.read_below, folder=lambda c: c.folder),
        "grouped": _with(results.grouped, results=[]),
        "as_frame": _with(claims.as_frame, decisions=[]),
        "save_result": _with(
            report_save.save_result,
            result=lambda c: c.result,
            folder=lambda c: c.folder / "out",
            command="lotto imp",
            seconds=1.0,
        ),
        "load_result": _with(report_save.load_result, folder=lambda c: c.saved),
        "save_experiment": _with(
            report_experiments.save_experiment,
            experiment=lambda c: papers.get("stabilizing.sparsity"),
            options=lambda c: c.options,
            frame=lambda c: c.rows,
            folder=lambda c: c.folder / "exp",
            command="lotto run",
            seconds=1.0,
            known=(),
        ),
        "write_experiments": _with(report_experiments.write_experiments, folder=lambda c: c.folder / "exp", known=()),
    }
    for name in ("load", "export"):
        if name == "load" and hasattr(lotto, "load"):
            found["lotto.load"] = _with(lotto.load, path=lambda c: c.saved)
    return found


SURFACE = _surface()


def cases() -> list[tuple[str, str, str]]:
    """Every (callable, argument, value)."""
    context = Context.shared
    return [
        (name, argument, value)
        for name, (_, arguments) in SURFACE.items()
        for argument in arguments(context)
        if argument != "c_"
        for value in POOL
        if (argument, value) not in SKIPPED and not (argument in OWN and value in CODE)
    ]


SKIPPED = {("engine", "None"), ("jobs", "None"), ("stop", "10**30")}
"""What is right and slow: worker processes, batches without end."""
OWN, CODE = {"progress", "on_step", "function", "on_product"}, {"function", "class", "module", "module class"}
"""Functions of the user's own that are called: whatever they raise is theirs."""


class Hung(BaseException):
    """A call took too long."""


def _alarm(*_: object) -> None:
    raise Hung


def outcome(call: Callable[[], Any]) -> tuple[str, str]:
    """``accepted``, ``refused``, ``unclean`` (by more than a sentence) or ``raw``, and what was said."""
    before = signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call()
        return "accepted", ""
    except LottoError as error:
        said = str(error)
        wrong = LONG[:201] in said or "\n" in said or "\0" in said or not said.endswith((".", ")", "?"))
        return ("unclean", f"not a sentence: {said[:400]!r}") if wrong else ("refused", said)
    except Hung:
        return "raw", "hangs"
    except Exception as error:
        return "raw", f"{type(error).__name__}: {str(error)[:160]}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tried(name: str, argument: str, value: str) -> tuple[str, str]:
    """What a callable does with one wrong argument among right ones."""
    function, arguments = SURFACE[name]
    given = {**arguments(Context.shared), argument: POOL[value]()}
    return outcome(lambda: function(**given))


def main(patterns: Sequence[str]) -> None:
    """Count all, or those whose callable is named; print what breaks."""
    counts: Counter[str] = Counter()
    raw: dict[tuple[str, str, str], list[str]] = {}
    accepted: dict[tuple[str, str], list[str]] = {}
    chosen = [c for c in cases() if not patterns or c[0] in patterns]
    for name, argument, value in chosen:
        began = time.time()
        kind, said = tried(name, argument, value)
        counts[kind] += 1
        if kind in ("raw", "unclean"):
            raw.setdefault((name, argument, said.split(":")[0]), []).append(f"{value} [{said[:100]}]")
        elif kind == "accepted":
            accepted.setdefault((name, argument), []).append(value)
        elif "-v" in sys.argv:
            print(f"{name}({argument}={value}): {said}")
        if time.time() - began > 3:
            print(f"slow: {name} {argument} {value} {time.time() - began:.1f} s")
    for (name, argument, kind), values in raw.items():
        print(f"{name}({argument}) {kind}: {len(values)}: {'; '.join(values[:4])}")
    if "-a" in sys.argv:
        for (name, argument), values in accepted.items():
            print(f"accepted: {name}({argument}): {', '.join(values)}")
    print(dict(counts), "of", len(chosen))


@contextlib.contextmanager
def by_itself():
    """A context in a folder of its own, for a script."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as made:
        os.chdir(made)
        Context.shared = Context(Path(made))
        yield Context.shared


if __name__ == "__main__":
    with by_itself():
        main([a for a in sys.argv[1:] if not a.startswith("-")])
