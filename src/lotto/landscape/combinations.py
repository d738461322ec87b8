"""Error and loss at many combinations of a few networks.

A combination is ``sum_i c_i w_i`` with coefficients that sum to 1: positions on a line or in a plane. The outputs of a
perceptron's first layer there are the same combination of its outputs at the networks, so they are computed once for
each network instead of once for each position. That layer is most of a small perceptron's arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from lotto.core.weights import Weights
from lotto.data import Split
from lotto.models.fully_connected import is_plain_mlp
from lotto.recipe.recipe import Recipe
from lotto.training.evaluation import Metrics, Tally, examples_of
from lotto.training.network import Network

Point = Callable[[int, Iterable[str]], Weights]
"""The weights of these names at position i."""


def first_layer_dominates(recipe: Recipe, network: Network) -> bool:
    """Whether the network is a perceptron of ours in full precision with most of its weights in the first layer."""
    plain = recipe.arrays.has_tensors and is_plain_mlp(network.module, network.dtype)
    if network.dtype == torch.bfloat16 or not plain:
        return False
    sizes = [p.numel() for p in network.module.parameters()]
    return 2 * sizes[0] >= sum(sizes) and len(sizes) > 2


@torch.no_grad()
def evaluate_combinations(
    recipe: Recipe,
    network: Network,
    corners: Sequence[Weights],
    coefficients: Sequence[Sequence[float]],
    at: Point,
    split: Split,
    examples: int | None = None,
    on_batch: Callable[[float], None] = lambda fraction: None,
) -> list[Metrics]:
    """Evaluate a perceptron at combinations of ``corners``; see `first_layer_dominates`.

    Batches must add up (`evaluation.adds_up`): nobody keeps the outputs of all positions.

    Args:
        recipe: data, loss, error.
        network: for its device and precision.
        corners: the networks.
        coefficients: of each position, one for each corner.
        at: the weights at a position.
        split: which examples.
        examples: at most so many.
        on_batch: called with the fraction that is done.
    """
    device, dtype = network.device, network.dtype
    names = [n.removesuffix(".weight") for n in corners[0] if n.endswith(".weight")]
    later = [f"{name}.{part}" for name in names[1:] for part in ("weight", "bias")]
    rest = [_on(at(i, later), device, dtype) for i in range(len(coefficients))]
    firsts = [_on({n: w[n] for n in (f"{names[0]}.weight", f"{names[0]}.bias")}, device, dtype) for w in corners]
    tallies = [Tally(recipe) for _ in coefficients]
    count, total = 0, min(examples or recipe.arrays.size(split), recipe.arrays.size(split))
    for x, y in examples_of(recipe, network, split, examples):
        flat = x.flatten(1).to(dtype)
        outputs = [torch.addmm(w[f"{names[0]}.bias"], flat, w[f"{names[0]}.weight"].t()) for w in firsts]
        for i, hidden in enumerate(_combined(outputs, coefficients)):
            for name in names[1:]:
                weight, bias = rest[i][f"{name}.weight"], rest[i][f"{name}.bias"]
                hidden = torch.addmm(bias, hidden.relu_(), weight.t())
            tallies[i].add(hidden, y)
        count += len(x)
        on_batch(count / total)
    return [tally.metrics() for tally in tallies]


def _combined(outputs: Sequence[Tensor], coefficients: Sequence[Sequence[float]]) -> Iterator[Tensor]:
    for row in coefficients:
        made = outputs[0] * row[0]
        for output, factor in zip(outputs[1:], row[1:], strict=True):
            made.add_(output, alpha=factor)
        yield made


def _on(weights: Weights, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """On the device, in at least the network's precision."""
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    return {n: t.to(device, kept) for n, t in weights.items()}
