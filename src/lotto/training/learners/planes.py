"""Where the values of a network and their gradients lie in memory, for one size of inputs.

Importing this module needs numba.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from lotto.training.learners.batch_innermost import Pair, Plane, Reach, Workspace
from lotto.training.learners.steps import AfterStep, ConvolutionStep, PoolingStep, Step

Kind = tuple[int, Pair, Reach]
"""Channels, height and width, and the zeros around."""


class Planes:
    """What kind of memory values and gradients need, and planes that are in use in turn.

    Args:
        steps: of the network.
        workspace: of all planes.
        channels, size: of the inputs.
    """

    def __init__(self, steps: Sequence[Step], workspace: Workspace, channels: int, size: Pair) -> None:
        self.workspace, self._free = workspace, dict[Kind, list[Plane]]()
        self._kinds, self._all = dict[int, Kind](), list[Plane]()  # kept, so that no other has the same number
        same = {step.x: step.out for step in steps if isinstance(step, AfterStep) and step.in_place}
        self.same = {0: 0, **{step.out: same.get(step.out, step.out) for step in steps}}
        """The value in whose memory a value lies."""
        shapes, read, given = {0: (channels, size)}, defaultdict[int, list[Reach]](list), dict[int, Reach]()
        for step in steps:
            before = shapes[step.x]
            if isinstance(step, ConvolutionStep):
                shape = step.layer.shape
                shapes[step.out] = (step.layer.outputs, shape.outputs(before[1]))
                read[self.same[step.x]].append(shape.reach(before[1]))
                given[self.same[step.out]] = shape.back_reach(before[1])
            elif isinstance(step, PoolingStep):
                shapes[step.out] = (before[0], step.pooling.outputs(before[1]))
            else:
                shapes[step.out] = before
        self._values = {v: (*shapes[v], _widest(read[v])) for v in {*self.same.values()}}
        # Gradients of what one sweep reads and writes lie in memory of one kind, so that one can be in another's place.
        alike = {v: {v} for v in {*self.same.values()}}
        for step in steps:
            if isinstance(step, AfterStep):
                met = [self.same[v] for v in (step.x, step.out, step.added) if v is not None]
                group = set[int]().union(*(alike[v] for v in met))
                alike |= dict.fromkeys(group, group)
        reach = {v: _widest([given[u] for u in group if u in given]) for v, group in alike.items()}
        self._gradients = {v: (*shapes[v], reach[v]) for v in alike}

    def value(self, value: int) -> Plane:
        """Memory for a value."""
        return self._taken(self._values[self.same[value]])

    def gradient(self, value: int) -> Plane:
        """Memory for a value's gradient."""
        return self._taken(self._gradients[self.same[value]])

    def can_be(self, plane: Plane, value: int) -> bool:
        """Whether a plane is memory as a value's gradient needs it."""
        return self._kinds[id(plane)] == self._gradients[self.same[value]]

    def give_back(self, plane: Plane) -> None:
        """Nobody reads it from now on; the zeros around it are still there."""
        self._free.setdefault(self._kinds[id(plane)], []).append(plane)

    def _taken(self, kind: Kind) -> Plane:
        if self._free.get(kind):
            return self._free[kind].pop()
        made = self.workspace.plane(*kind)
        self._kinds[id(made)] = kind
        self._all.append(made)
        return made


def _widest(reaches: Sequence[Reach]) -> Reach:
    """The zeros that all readers need."""
    before, after = ([max((r[side][d] for r in reaches), default=0) for d in range(2)] for side in range(2))
    return (before[0], before[1]), (after[0], after[1])
