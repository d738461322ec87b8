"""Whether kernels or torch's dense layers are quicker, layer by layer: measured once on a machine, and kept.

A unit's step (convolution, BatchNorm, ReLU, all gradients) is timed on a few rows of places, a linear layer's on a few
outputs: by torch, by dense kernels, and by kernels of single weights at two densities, between which it grows in
proportion. What is kept is never measured again, so that a training has the same bits whenever it goes on.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from lotto.core import files
from lotto.core.errors import StorageError
from lotto.core.locks import PathLock
from lotto.training.learners.activations import RELU
from lotto.training.learners.descriptions import Layer, LinearLayer
from lotto.training.learners.linear_head import DenseLinear, Linear, SparseLinear

WORK, ROWS, OUTPUTS = 3e8, 4, 64
"""Of a large layer as many rows of places, or outputs, are timed as are so many multiplications, but at least so many
rows or outputs."""
TURNS, SECONDS = 3, 0.5
"""The best of so many turns counts, or of those that fit into the time; the first is not counted."""
FEW, MANY = 1 / 32, 1 / 4
"""Densities at which kernels of single weights are timed."""


class Costs(NamedTuple):
    """Seconds of a unit's step.

    Attributes:
        torch: by torch's operators.
        dense: by dense kernels.
        none, all: by kernels of single weights, with no weights and with all.
    """

    torch: float
    dense: float
    none: float
    all: float

    @property
    def crossover(self) -> float:
        """Density below which single weights are quicker than the dense kernel."""
        return min(1.0, max(0.0, (self.dense - self.none) / (self.all - self.none))) if self.all > self.none else 1.0

    def by_kernels(self, density: float) -> float:
        """With the quicker of both kernels."""
        return self.none + density * (self.all - self.none) if density < self.crossover else self.dense


def costs_of(
    layers: Mapping[str, Layer | LinearLayer], batch: int, folder: Path | None = None, half: bool = False
) -> dict[str, Costs] | None:
    """The costs of layers by name; None where they cannot be kept.

    Args:
        layers: see there.
        batch: its size.
        folder: where they are kept; by default in the user's cache.
        half: whether it is in bfloat16.
    """
    path = (folder or files.user_cache("break-even")) / f"{_machine()}.json"
    threads = torch.get_num_threads()
    precision = ", bfloat16" if half else ""
    keys = {name: f"{layer}, batch {batch}, threads {threads}{precision}" for name, layer in layers.items()}
    known = _read(path)
    if missing := {keys[name]: layer for name, layer in layers.items() if keys[name] not in known}:
        try:
            files.make_folder(path.parent)
            lock = PathLock(path.with_suffix(".lock"))
            lock.acquire()
        except (OSError, StorageError):
            return None
        try:
            known = _read(path)
            new = {key: measured(layer, batch, half) for key, layer in missing.items() if key not in known}
            known |= new
            if new:
                files.write_json(path, known)
        except StorageError:
            return None
        finally:
            lock.release()
    return {name: Costs(*known[key]) for name, key in keys.items()}


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        return found if isinstance(found, dict) else {}
    return {}


def _machine() -> str:
    """A name for what the costs depend on: the machine, torch, and the kernels."""
    from lotto.training.learners.program import edition

    about = [platform.node(), platform.machine(), torch.backends.cpu.get_cpu_capability(), torch.__version__, edition()]
    return hashlib.blake2b(json.dumps(about).encode(), digest_size=8).hexdigest()


def measured(layer: Layer | LinearLayer, batch: int, half: bool = False) -> Costs:
    """Time a unit's step, or a linear layer's; ``half``: in bfloat16, which linear layers' kernels do without."""
    if isinstance(layer, LinearLayer):
        outputs = min(layer.outputs, max(OUTPUTS, round(WORK / (layer.inputs * batch))))
        return _costs(_linear_contenders(layer._replace(outputs=outputs), batch, half), layer.outputs / outputs)
    work = math.prod(layer.shape.kernel) * layer.inputs * layer.outputs * layer.size[1] * batch
    height = min(layer.size[0], max(ROWS, round(WORK / work)))
    small = layer._replace(size=(height, layer.size[1]))
    kernels = [_by_kernels(small, batch, density, half) for density in (1.0, FEW, MANY)]
    contenders = [_by_torch(small, batch, half), *kernels]
    return _costs(contenders, layer.size[0] / height)


def _costs(contenders: Sequence[Callable[[], object]], times: float) -> Costs:
    """The costs of so many times a step by torch, by dense kernels, and by lists of few and of many weights."""
    best, first = [float("inf")] * len(contenders), time.perf_counter()
    for turn in range(TURNS + 1):
        if turn > 1 and time.perf_counter() - first > SECONDS:
            break
        for i, step in enumerate(contenders):
            began = time.perf_counter()
            step()
            best[i] = min(best[i], time.perf_counter() - began) if turn else best[i]
    by_torch, dense, few, many = (seconds * times for seconds in best)
    slope = max(0.0, (many - few) / (MANY - FEW))
    none = max(0.0, few - FEW * slope)
    return Costs(by_torch, dense, none, none + slope)


def _by_torch(layer: Layer, batch: int, half: bool) -> Callable[[], object]:
    shape = layer.shape
    x = torch.ones(batch, layer.inputs, *layer.size).requires_grad_(not layer.first)
    weight = torch.ones(layer.outputs, layer.inputs // layer.groups, *shape.kernel).requires_grad_()
    affine = torch.ones(2, layer.outputs).requires_grad_()
    inputs = [weight, affine] if layer.first else [x, weight, affine]

    @torch.enable_grad()
    @torch.autocast("cpu", torch.bfloat16, enabled=half)
    def step() -> object:
        out = F.conv2d(x, weight, None, shape.stride, shape.padding, shape.dilation, layer.groups)
        if layer.norm:
            out = F.batch_norm(out, None, None, affine[0], affine[1], training=True)
        else:
            out = out + affine[0][:, None, None]
        return torch.autograd.grad(out.relu_().sum(), inputs, allow_unused=True)

    return step


def _by_kernels(layer: Layer, batch: int, density: float, half: bool) -> Callable[[], object]:
    from lotto.training.learners import program
    from lotto.training.learners.after_layers import Bias, Norm
    from lotto.training.learners.batch_innermost import Workspace
    from lotto.training.learners.conv_layers import DENSE, SPARSE, Convolution
    from lotto.training.learners.network_pass import StepsPass
    from lotto.training.learners.steps import AfterStep, ConvolutionStep
    from lotto.training.learners.team import Team

    count, space = layer.outputs, Workspace(batch, half)
    weights = (count, layer.inputs // layer.groups, *layer.shape.kernel)
    mask = np.random.default_rng(0).random(weights) < density
    convolution = Convolution(layer.shape, 2 * count, mask, DENSE if density == 1 else SPARSE, layer.groups)
    after = Norm(count, 0, count, 0, count, 0) if layer.norm else Bias(count, 0)
    steps = (ConvolutionStep(0, 1, convolution), AfterStep(1, 2, after, activation=RELU))
    made = StepsPass(steps, set() if layer.first else {0}, space, layer.inputs, layer.size)
    instructions = program.rows([*made.forward, *made.backward])
    memory, moments, lists, places = space.tables()
    values, running = np.ones(2 * count + mask.size, np.float32), np.ones(2 * count, np.float32)
    vectors = (values, np.zeros_like(values), running)
    constants = np.array([[0.1, 1e-5]])
    team, tables = Team(torch.get_num_threads()), (moments, lists, places, constants, space.packed, space.means.numpy())
    kernels = program.runner(instructions)
    return lambda: program.work_off(team, kernels, instructions, memory, *vectors, *tables)


def _linear_contenders(layer: LinearLayer, batch: int, half: bool) -> list[Callable[[], object]]:
    """A linear layer's step by torch, by products of whole matrices here, and by lists of few and of many weights."""
    x, given = torch.ones(layer.inputs, batch), torch.ones(layer.outputs, batch)
    weight, bias = torch.ones(layer.outputs, layer.inputs), torch.ones(layer.outputs)
    tensors = (weight, bias, torch.zeros_like(weight), torch.zeros_like(bias))
    random = np.random.default_rng(0)

    def by_lists(density: float) -> SparseLinear:
        return SparseLinear(Linear(*tensors, torch.from_numpy(random.random(weight.shape) < density)))

    def step(made: DenseLinear | SparseLinear) -> Callable[[], object]:
        def run() -> object:
            made.forward(x)
            made.set_gradients(given, x)
            return made.input_gradient(given, x, relu=False)

        return run

    leaves = [tensor.detach().requires_grad_() for tensor in (x.t().contiguous(), weight, bias)]

    @torch.enable_grad()
    @torch.autocast("cpu", torch.bfloat16, enabled=half)
    def by_torch() -> object:
        return torch.autograd.grad(F.linear(*leaves).sum(), leaves)

    return [by_torch, *(step(made) for made in (DenseLinear(Linear(*tensors, None)), by_lists(FEW), by_lists(MANY)))]
