"""A network's nodes as the steps that kernels take: what follows a convolution or a sum is one sweep over memory.

Importing this module needs numba.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from lotto.training.learners.activations import Activation
from lotto.training.learners.after_layers import Bias, Norm
from lotto.training.learners.batch_innermost import Pooling
from lotto.training.learners.conv_layers import Convolution
from lotto.training.learners.descriptions import Activate, Add, Convolve, Node, Normalise, inputs_of


@dataclass(frozen=True)
class ConvolutionStep:
    """The value ``out`` from ``x``."""

    x: int
    out: int
    layer: Convolution


@dataclass(frozen=True)
class AfterStep:
    """``out = activation(layer(x) + added)``: the layer is BatchNorm, a bias or nothing; ``added`` a value or None."""

    x: int
    out: int
    layer: Norm | Bias | None = None
    added: int | None = None
    activation: Activation | None = None

    @property
    def in_place(self) -> bool:
        """Whether it is a bias that is added where its inputs are: nobody reads these."""
        return isinstance(self.layer, Bias) and self.added is None and self.activation is None


@dataclass(frozen=True)
class PoolingStep:
    """The value ``out`` from ``x``."""

    x: int
    out: int
    pooling: Pooling


Step = ConvolutionStep | AfterStep | PoolingStep


class NamedLayers(NamedTuple):
    """Layers by the names of their modules; the biases are those of convolutions that have one."""

    convolutions: dict[str, Convolution]
    biases: dict[str, Bias]
    norms: dict[str, Norm]


def steps_of(nodes: Sequence[Node], layers: NamedLayers) -> list[Step]:
    """The steps that give what nodes give; values that nobody but the next sweep would read have no memory.

    Args:
        nodes: see `Description`; a convolution's outputs before its bias are a value more.
        layers: see there.
    """
    readers: dict[int, list[int]] = defaultdict(list)
    for value, node in enumerate(nodes, 1):
        for read in inputs_of(node):
            readers[read].append(value)
    known, found, fresh = {0}, list[Step](), len(nodes) + 1

    def swept(step: AfterStep) -> AfterStep:
        """With the sum and the activation that follow."""
        while len(readers[step.out]) == 1 and step.activation is None:
            (value,) = readers[step.out]
            node = nodes[value - 1]
            if isinstance(node, Activate):
                step = replace(step, out=value, activation=node.activation)
            elif isinstance(node, Add) and step.added is None:
                other = node.other if node.x == step.out else node.x
                if other not in known:
                    break
                step = replace(step, out=value, added=other)
            else:
                break
            known.add(value)
        return step

    for value, node in enumerate(nodes, 1):
        if value in known:
            continue
        known.add(value)
        if isinstance(node, Convolve):
            bias, raw = layers.biases.get(node.name), value
            if bias is not None:
                raw, fresh = fresh, fresh + 1
            found.append(ConvolutionStep(node.x, raw, layers.convolutions[node.name]))
            if bias is not None:
                found.append(swept(AfterStep(raw, value, bias)))
        elif isinstance(node, Normalise):
            found.append(swept(AfterStep(node.x, value, layers.norms[node.name])))
        elif isinstance(node, Add):
            found.append(swept(AfterStep(node.x, value, added=node.other)))
        elif isinstance(node, Activate):
            found.append(AfterStep(node.x, value, activation=node.activation))
        else:
            found.append(PoolingStep(node.x, value, node.pooling))
    return found
