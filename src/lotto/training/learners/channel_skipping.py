"""Training without the units that a mask has cut off: the same network and outcome at less cost.

A unit that nothing reads any more takes part in no output, so its own weights have the gradient 0: only weight decay
and momentum still move them. The parameters stay whole, and with them optimizer, masks and what is stored; forward and
backward see the rows and columns that are left.

BatchNorm's running statistics of a removed unit are read by nothing, but a path to another network goes by them. They
forget: where a state is kept, the whole network is trained for so many steps before that what they remember of earlier
ones is below rounding.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from lotto.core.errors import UsageError
from lotto.data.batch import Batch
from lotto.models.plain import is_unhooked
from lotto.pruning.channels import Space, channel_spaces, shape_of, traced
from lotto.training.job import Job, State
from lotto.training.learners.autograd import Autograd
from lotto.training.network import NORMS, Network

Picks = Mapping[str, tuple[Tensor | None, Tensor | None]]

MAX_FLOPS_FRACTION = 0.9
"""Picking weights costs some time: with more than this fraction of the multiplications left it does not pay."""

FORGOTTEN = 1e-9
"""Share of an old value in a running average that is none any more."""


class ChannelSkipping(Autograd):
    """Gradients by autograd of what is left of a network; see `SingleLearner`."""

    def __init__(self, jobs: Sequence[Job], network: Network, states: Sequence[State]) -> None:
        super().__init__(jobs, network, states)
        small = compacted(self.job, network)
        assert small is not None  # `supports` has said so
        self.small = small
        self.dense = self.outputs
        self.outputs = self.reduced = self._forward(small)

    @classmethod
    def supports(cls, jobs: Sequence[Job], network: Network) -> bool:
        """One network of ours of which the mask leaves little enough, see `compacted`, and holds still.

        What is removed may grow again, and its running statistics would then be read.
        """
        alone = len(jobs) == 1 and jobs[0].sparsity is None and not jobs[0].recipe.graphs
        return alone and compacted(jobs[0], network) is not None

    def train_step(self, batch: Batch, step: int) -> Tensor:
        self._choose(step)
        return super().train_step(batch, step)

    def _choose(self, step: int) -> None:
        """The dense network for the last steps before a state is kept, see above; else what is left of it."""
        settling = any(kept - self.small.memory <= step < kept for kept in self.job.steps)
        if settling and self.outputs is not self.dense:
            self.small.put_back()
            self.outputs = self.dense
        elif not settling and self.outputs is self.dense:
            self.small.take()
            self.outputs = self.reduced

    def eval_network(self, i: int = 0) -> Network:
        if self.outputs is not self.dense:
            self.small.put_back()
        return self.network

    def describe(self) -> str:
        return f"autograd, {self.small.fraction:.1%} of the multiplications" + super().describe().removeprefix(
            "autograd"
        )


class Compacted(nn.Module):
    """The forward of a module by rows and columns of its parameters.

    Args:
        graph: of the module, with parameters and buffers of its own, which are made smaller.
        whole: the module.
        picks: for parameters and buffers that lose something, the indices that are left, of rows and of columns
            (None = all).
        fraction: of the multiplications that are left.
        memory: steps after which running statistics have forgotten what was before.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        whole: nn.Module,
        picks: Picks,
        fraction: float,
        memory: int,
    ) -> None:
        super().__init__()
        self.graph, self.picks, self.fraction, self.memory = graph, picks, fraction, memory
        self._parameters_of, self._buffers_of = dict(whole.named_parameters()), dict(whole.named_buffers())
        for name, tensor in (*graph.named_parameters(), *graph.named_buffers()):
            tensor.data = self._picked(name, tensor.data)

    def forward(self, x: Tensor) -> Tensor:
        """Gradients reach the whole parameters, 0 where nothing was picked."""
        values = {name: self._picked(name, parameter) for name, parameter in self._parameters_of.items()}
        outputs: Tensor = functional_call(self.graph, values, (x,))
        return outputs

    @torch.no_grad()
    def take(self) -> None:
        """Have the module's buffers, as far as units are left."""
        for name, buffer in self.graph.named_buffers():
            buffer.copy_(self._picked(name, self._buffers_of[name]))

    @torch.no_grad()
    def put_back(self) -> None:
        """Give the module the buffers of the units that are left."""
        for name, buffer in self.graph.named_buffers():
            rows, _ = self.picks.get(name, (None, None))
            whole = self._buffers_of[name]
            if rows is None:
                whole.copy_(buffer)
            else:
                whole.index_copy_(0, rows, buffer)

    def _picked(self, name: str, tensor: Tensor) -> Tensor:
        for axis, index in enumerate(self.picks.get(name, ())):
            if index is not None:
                tensor = tensor.index_select(axis, index)
        return tensor


def compacted(job: Job, network: Network, max_flops_fraction: float = MAX_FLOPS_FRACTION) -> Compacted | None:
    """The network's forward without what the job's mask has cut off; None where that is nothing, or too little.

    Of named models only: someone's own forward may do what a graph of it does not show.
    """
    masks = {name: mask for name, mask in (job.mask or {}).items() if mask.dim() > 1}
    if not isinstance(job.recipe.model, str) or not is_unhooked(network.module):
        return None
    if all(bool(mask.reshape(*mask.shape[:2], -1).any(2).any(0).all()) for mask in masks.values()):
        return None  # every input of every layer is read
    memory = _memory(network.module)
    if memory is None or job.end - job.from_step <= memory:
        return None
    example = torch.zeros(2, *job.recipe.arrays.shape, device=network.device)
    try:
        graph = copy.deepcopy(traced(network.module))
        spaces = channel_spaces(graph, example.double() if network.dtype == torch.float64 else example)
    except UsageError:  # it has branches, or its inputs are no numbers that layers take, such as those of words
        return None
    picks = _picks(spaces, _left(spaces, masks), network.device)
    fraction = _flops_fraction(graph, picks)
    if fraction > max_flops_fraction:
        return None
    return Compacted(graph, network.module, picks, fraction, memory)


def _memory(module: nn.Module) -> int | None:
    """After how many steps running statistics have forgotten what was before; None if they never do."""
    memory = 0
    for layer in module.modules():
        if isinstance(layer, NORMS) and layer.track_running_stats:
            if layer.momentum is None or not 0 < layer.momentum <= 1:
                return None
            memory = max(memory, 1 if layer.momentum == 1 else math.ceil(math.log(FORGOTTEN, 1 - layer.momentum)))
    return memory


def _left(spaces: list[Space], masks: Mapping[str, Tensor]) -> list[Tensor]:
    """For each space, which channels are read by a unit that is itself left, or by the outputs."""
    left = [torch.ones(space.size, dtype=torch.bool) for space in spaces]
    made_by = {name: i for i, space in enumerate(spaces) for name in space.producers}
    while True:
        before = sum(int(kept.sum()) for kept in left)
        for i in reversed(range(len(spaces))):
            read = torch.zeros_like(left[i])
            for name, *_ in spaces[i].readers:
                mask = masks.get(f"{name}.weight")
                if mask is None:  # all weights are there
                    read[:] = True
                    break
                by_channel = mask.cpu().reshape(len(mask), spaces[i].size, -1).any(2)
                read |= (by_channel[left[made_by[name]]] if name in made_by else by_channel).any(0)
            read &= left[i]
            if not bool(read.any()):
                read[left[i].nonzero()[0]] = True  # a layer has at least one unit
            left[i] = read
        if sum(int(kept.sum()) for kept in left) == before:
            return left


def _picks(spaces: list[Space], left: list[Tensor], device: torch.device) -> Picks:
    rows: dict[str, Tensor] = {}
    columns: dict[str, Tensor] = {}
    for space, kept in zip(spaces, left, strict=True):
        if bool(kept.all()):
            continue
        index = kept.nonzero().squeeze(1).to(device)
        for name in (*space.producers, *space.norms):
            for part in ("weight", "bias", "running_mean", "running_var"):
                rows[f"{name}.{part}"] = index
        for name, _, positions in space.readers:  # a flattened layer has several columns for each channel
            columns[f"{name}.weight"] = (index[:, None] * positions + torch.arange(positions, device=device)).flatten()
    return {name: (rows.get(name), columns.get(name)) for name in {**rows, **columns}}


def _flops_fraction(graph: fx.GraphModule, picks: Picks) -> float:
    """Multiplications of all layers with what is left, as a fraction of those with everything."""
    layers, less, all_ = dict(graph.named_modules()), 0, 0
    for node in graph.graph.nodes:
        weight = getattr(layers.get(str(node.target)), "weight", None) if node.op == "call_module" else None
        shape = shape_of(node)
        if isinstance(weight, Tensor) and weight.dim() > 1 and shape is not None:
            picked = picks.get(f"{node.target}.weight", (None, None))
            sizes = [size if index is None else len(index) for size, index in zip(weight.shape, picked, strict=False)]
            positions = math.prod(weight.shape[2:]) * math.prod(shape[2:])
            all_ += positions * math.prod(weight.shape[:2])
            less += positions * math.prod(sizes)
    return less / all_ if all_ else 1.0
