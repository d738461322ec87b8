"""Steps of a network as the kernel works them off, for one shape of inputs.

Importing this module needs numba.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from lotto.inference import network_kernel as kernel
from lotto.inference.layer_lists import LayerLists, Weights, lists_of
from lotto.inference.steps import AVERAGE, GREATEST, LAYER, MEAN, SUM, VIEW, Step, shapes, stored
from lotto.training.learners.batch_innermost import LANES, Pair, Shape, rounded_up

NEAR = 1 << 18
"""Numbers of the largest activation: with what a layer copies and sums up they fit into a processor's own memory."""
FEWEST, MOST = 16, 128
"""Examples that are computed at a time: fewer are no whole vector, more gain nothing."""
_KINDS = {LAYER: kernel.LAYER, SUM: kernel.SUM, MEAN: kernel.MEAN, GREATEST: kernel.GREATEST, AVERAGE: kernel.AVERAGE}


class KernelPlan:
    """A network for inputs of one shape. Threads may share it: what a call writes to is the call's own.

    Args:
        steps: of the network.
        places: of the kept weights, see `steps.by_torch`.
        shape: of the inputs, (batch, ...).
    """

    def __init__(self, steps: Sequence[Step], places: np.ndarray, shape: Sequence[int]) -> None:
        self.shapes = shapes(steps, shape[1:])
        at_once = min(MOST, max(FEWEST, NEAR // max(map(math.prod, self.shapes))))
        self.examples = -(-shape[0] // -(-shape[0] // at_once))
        self._memory = _Memory(steps, [math.prod(found) * self.examples for found in self.shapes])
        self._layers: list[LayerLists] = []
        self._biases = 0
        layers, rows, read = stored(steps), list[list[int]](), 0
        for number, step in enumerate(steps):
            at = self._memory.advance(number)
            if step.kind == LAYER:
                value, where, _ = next(layers)
                kept = np.arange(step.stored) if where is None else places[where]
                rows.append(self._row(number, step, at, self._lists(step, kept, value.start)))
                read = max(read, at[step.source] + self._layers[-1].reach)
            elif step.kind != VIEW:
                rows.append(self._row(number, step, at, {}))
        scratch = self._memory.size
        self.size = max(read, *(scratch + layer.memory for layer in self._layers), scratch)
        self.program = np.array(rows, np.int64).reshape(-1, len(kernel.FIELDS))
        self.program[:, kernel.FIELDS.index("scratch")] = scratch
        self._tables()

    def _lists(self, step: Step, kept: np.ndarray, first: int) -> dict[str, int]:
        """The numbers of a layer's row; its lists are added to the others."""
        geometry = zip((step.shape[2:], step.stride, step.padding, step.dilation), (1, 1, 0, 1), strict=True)
        shape = Shape(*(_pair(*given) for given in geometry))
        weights = Weights(shape, step.shape[0], step.shape[1] * step.groups, step.groups, kept, first)
        made = lists_of(weights, _pair(self.shapes[step.source][1:], 1), self.examples)
        numbers = {
            "rows": made.rows, "vectors": made.vectors, "plane": made.plane, "padded_height": made.size[0],
            "padded_width": made.size[1], "raw": made.raw, "bias": self._biases,
            "first_phase": sum(len(layer.phases) for layer in self._layers), "phases": len(made.phases),
            "first_group": sum(len(layer.entries) for layer in self._layers), "groups": len(made.entries),
        }  # fmt: skip
        self._layers.append(made)
        self._biases += step.shape[0]
        return numbers

    def _row(self, number: int, step: Step, at: Sequence[int], more: dict[str, int]) -> list[int]:
        x, out = self.shapes[step.source], self.shapes[number + 1]
        names = [("step", step.stride, 1), ("before", step.padding, 0), ("gap", step.dilation, 1)]
        names += [("block", step.shape, 1)] if step.kind in (GREATEST, AVERAGE) else []
        found = {
            "kind": _KINDS[step.kind], "x_at": at[step.source], "out_at": at[number + 1],
            "added_at": -1 if step.added is None else at[step.added], "relu": int(step.relu),
            "examples": self.examples, "inputs": x[0], "outputs": out[0], **more,
        }  # fmt: skip
        found["height"], found["width"] = _pair(x[1:], 1)
        found["out_height"], found["out_width"] = _pair(out[1:], 1)
        for name, given, fill in names:
            found[f"{name}_h"], found[f"{name}_w"] = _pair(given, fill)
        return [found.get(name, 0) for name in kernel.FIELDS]

    def _tables(self) -> None:
        entries = [list_ for layer in self._layers for list_ in layer.entries]
        offsets, blocks, weights = (
            np.cumsum([0, *map(len, lists)])
            for lists in ([e.offsets for e in entries], [e.begins for e in entries], [e.places for e in entries])
        )
        phases = [phase for layer in self._layers for phase in layer.phases]
        self._arrays = (
            np.array(phases, np.int64).reshape(-1, 2),
            np.stack([offsets[:-1], blocks[:-1], blocks[1:], weights[:-1]], 1).astype(np.int64),
            *(np.concatenate([np.zeros(0, np.int64), *(e[i] for e in entries)]) for i in range(3)),
        )
        self._places = np.concatenate([np.zeros(0, np.int32), *(e.places for e in entries)])
        self._packed = (np.zeros(0, np.float32), np.zeros(0, np.float32))

    def _weights(self, values: np.ndarray) -> np.ndarray:
        """Values in the order of the lists: made anew when they are others."""
        known, packed = self._packed
        if not np.array_equal(known, values):
            packed = np.append(values, np.float32(0))[self._places]  # the last stands for those that fill lists up
            self._packed = (values.copy(), packed)
        return packed

    def outputs(self, x: Tensor, values: Tensor, biases: Tensor) -> Tensor:
        """Outputs of inputs; float32 on a CPU."""
        found = x.new_empty([len(x), *self.shapes[-1]])
        given, memory = x.flatten(1).contiguous().numpy(), x.new_empty(self.size).numpy()
        weights = (self._weights(values.numpy()), biases.numpy())
        where = (self.examples, *self._memory.ends, memory)
        kernel.run(given, found.flatten(1).numpy(), *where, self.program, *weights, *self._arrays)
        return found


class _Memory:
    """Where the outputs of each step lie: in the place of others that nobody reads any more.

    Args:
        steps: of the network.
        sizes: of the inputs and of each step's outputs, in numbers.
    """

    def __init__(self, steps: Sequence[Step], sizes: Sequence[int]) -> None:
        self.size, self._sizes, self._steps = 0, [rounded_up(size, LANES) for size in sizes], steps
        self._free: dict[int, list[int]] = {}
        self._origins = [0]  # of whom a view's numbers are
        for number, step in enumerate(steps):
            self._origins.append(self._origins[step.source] if step.kind == VIEW else number + 1)
        self._last = {self._origins[-1]: len(steps)}
        for number, step in reversed([*enumerate(steps)]):
            for read in (step.source, step.added):
                if read is not None:
                    self._last.setdefault(self._origins[read], number)
        self._places = [self._take(0)]

    @property
    def ends(self) -> tuple[int, int]:
        """Where the inputs and the last outputs lie."""
        return self._places[0], self._places[-1]

    def advance(self, number: int) -> list[int]:
        """Give a step's outputs their place; returns those of all so far."""
        if self._steps[number].kind == VIEW:
            self._places.append(self._places[self._steps[number].source])
            return self._places
        self._places.append(self._take(number + 1))
        for origin, last in self._last.items():
            if last == number:
                self._free.setdefault(self._sizes[origin], []).append(self._places[origin])
        return self._places

    def _take(self, register: int) -> int:
        size = self._sizes[register]
        if free := self._free.get(size):
            return free.pop()
        self.size += size
        return self.size - size


def _pair(sizes: Sequence[int], fill: int) -> Pair:
    """Height and width; what has fewer dimensions is filled up from the left."""
    height, width = [*[fill] * (2 - len(sizes)), *sizes]
    return height, width
