"""Scores made for untrained networks: SNIP, GraSP and SynFlow.

SNIP and GraSP read the loss of a training step: of a batch of training examples, with the batch's own statistics in
BatchNorm (the running ones of an untrained network say nothing about it) and without dropout. SynFlow reads no example.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lotto.core.errors import UsageError, text
from lotto.core.rng import stream
from lotto.data.batch import Batch, call, count
from lotto.models.norm_relu import by_operators
from lotto.pruning import masks
from lotto.pruning.allocation import keep_top
from lotto.pruning.context import Context

EXAMPLES = 1000
"""SNIP and GraSP read whole training batches of the data order of the context's seed, until they have so many examples:
100 for each of ten classes. Lee et al. took one batch of 100 or 128, Wang et al. ten examples of a class."""
ROUNDS = 100
"""SynFlow's rounds to a density, as Tanaka et al. took."""
SCALES = tuple(2.0**power for power in (-80, -40, -20, -8, 8, 20, 40, 80))
"""Factors on the inputs at which a linearised network has to give the same factor on its outputs; in float64 those of
two lose no digit."""
LINEAR = 1e-9
"""Relative difference up to which it does."""
NORMS = (nn.modules.batchnorm._BatchNorm,)


def snip(context: Context) -> dict[str, Tensor]:
    """``|w · ∂L/∂w|``: about how much the loss of a training step changes without the weight.

    Source: Lee et al., 1810.02340, section 4; their normalisation changes no order.

    Args:
        context: of which the model, the loss and the batches are read, see `EXAMPLES`.

    Returns:
        The scores in float64, by name, of the weights' shapes; 0 for pruned weights.

    >>> initial, mask = recipe.initial(0), lotto.pruning.masks.ones(recipe)
    >>> scores = lotto.lottery.score_weights(recipe, initial, score="snip", store=None)
    >>> lotto.pruning.prune(initial, mask, density=0.25, score=scores)
    Mask(25 % of 768 weights in 3 layers)
    """
    batches = _first_batches(context)
    with _ready(context) as weights:
        gradient = _mean([_gradients(context, batch, weights) for batch in batches], weights)
    return {n: (w.detach() * gradient[n]).abs().cpu().double() for n, w in weights.items()}


def grasp(context: Context) -> dict[str, Tensor]:
    """``w · (H g)``, with the gradient ``g`` and the Hessian ``H`` over the kept weights of a training step's loss.

    Without the weight the squared norm of ``g`` changes by about ``-2 w · (H g)``: those go first whose removal raises
    it most, so that what is left learns fastest.

    Source: Wang et al., 2002.07376, section 4, without the temperature of their code.

    Args:
        context: as of `snip`.

    Returns:
        As `snip`; signed.

    >>> scores = lotto.lottery.score_weights(recipe, recipe.initial(0), score="grasp", store=None)
    >>> bool((scores["fc1.weight"] < 0).any())
    True
    """
    batches = _first_batches(context)
    with _ready(context) as weights:
        gradient = _mean([_gradients(context, batch, weights) for batch in batches], weights)
        first: dict[str, Tensor] = {
            n: torch.where(context.mask[n].to(g.device).bool(), g, 0.0) for n, g in gradient.items()
        }
        product = _mean([_products(context, batch, weights, first) for batch in batches], weights)
    return {n: (w.detach() * product[n]).cpu().double() for n, w in weights.items()}


def synflow(context: Context, density: float | None = None) -> dict[str, Tensor]:
    """``|w · ∂R/∂w|``: ``R`` is the sum of the outputs for an input of ones, of the network with ``|w|`` for ``w``.

    To a density it prunes in `ROUNDS` rounds that each remove the same share of what is left, over all layers together,
    and scores the masked network anew in each: what went earlier lies below what went later, and that below the last
    round's scores. BatchNorm is the multiplication that it is in evaluation mode, with a mean of 0.

    Source: Tanaka et al., 2006.05467, section 6 and algorithm 1.

    Args:
        context: of which the model and the shape of an example are read.
        density: share of all prunable weights that the cut leaves; None = one round: the scores of the network as it
            is.

    Returns:
        The scores in float64, by name, of the weights' shapes.

    Raises:
        UsageError: unless the network takes one tensor of real numbers, and gives, with ``|w|`` for ``w``, ``t`` times
            the outputs for ``t`` times the inputs: ReLU, pooling and BatchNorm do, tanh, GELU, softmax, LayerNorm do
            not, and conservation of the scores, on which the method rests, is lost with them.

    >>> scores = lotto.lottery.score_weights(recipe, recipe.initial(0), score="synflow", store=None)
    >>> bool((scores["fc1.weight"] >= 0).all())
    True
    """
    example = next(iter(context.batches))[0]
    if not isinstance(example, Tensor) or not example.is_floating_point():
        raise UsageError(
            f"The score 'synflow' feeds one tensor of ones, and the network takes {_kind(example)}; take another "
            "score, such as 'snip'."
        )
    model = _linearised(context.model)
    example = example[:1].double()
    _check_linear(model, example, dense=all(bool(m.all()) for m in context.mask.values()))
    ones, weights = torch.ones_like(example), _variables(model, context.mask)
    mask: dict[str, Tensor] = {n: m.bool() for n, m in context.mask.items()}
    start, size = masks.count(mask), masks.size(mask)
    rounds = ROUNDS if density is not None and 0 < round(density * size) < start else 1
    left = 1.0 if density is None or rounds == 1 else round(density * size) / start
    scores = {n: torch.zeros(m.shape, dtype=torch.float64) for n, m in mask.items()}
    for number in range(1, rounds + 1):
        found = _flows(model, ones, weights)
        if number == rounds:
            return {n: torch.where(mask[n], found[n], scores[n]) for n in mask}
        kept = keep_top(found, round(start * left ** (number / rounds)), mask)
        largest = max(float(s.max()) for s in found.values() if s.numel())
        for n in mask:
            gone = mask[n] & ~kept[n]
            within = found[n] / (2 * largest) if largest else found[n]
            scores[n] = torch.where(gone, number - rounds - 1 + within, scores[n])
            with torch.no_grad():
                weights[n].masked_fill_(gone.to(weights[n].device), 0.0)
        mask = dict(kept)
    raise AssertionError("the last round returns")


# --- the loss of a training step ----------------------------------------------------------------------------


def _first_batches(context: Context) -> list[Batch]:
    """The first batches until there are `EXAMPLES` examples, or all."""
    found: list[Batch] = []
    for inputs, targets in context.batches:
        found.append(Batch(inputs, targets))
        if sum(map(count, found)) >= EXAMPLES:
            break
    return found


@contextlib.contextmanager
def _ready(context: Context) -> Iterator[dict[str, Tensor]]:
    """The parameters of a mask, of a model whose BatchNorm goes by the batch."""
    model = context.model
    by_operators(model)  # fused kernels have no second derivatives
    for part in model.modules():
        if isinstance(part, NORMS):
            part.train()
    yield _variables(model, context.mask)


def _variables(model: nn.Module, mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = dict(model.named_parameters(remove_duplicate=False))
    model.requires_grad_(False)
    return {n: named[n].requires_grad_(True) for n in mask}


def _gradients(
    context: Context, batch: Batch, weights: Mapping[str, Tensor], create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Of the loss of a batch; 0 for what it does not depend on."""
    loss = context.loss(call(context.model, batch.inputs), batch.targets)
    return torch.autograd.grad(
        loss, [*weights.values()], create_graph=create_graph, allow_unused=True, materialize_grads=True
    )


def _products(
    context: Context, batch: Batch, weights: Mapping[str, Tensor], direction: Mapping[str, Tensor]
) -> tuple[Tensor, ...]:
    """The Hessian of a batch's loss times a direction."""
    first = _gradients(context, batch, weights, create_graph=True)
    along = sum((g * direction[n].to(g.dtype)).sum() for n, g in zip(weights, first, strict=True))
    if not isinstance(along, Tensor) or not along.requires_grad:
        return tuple(torch.zeros_like(w) for w in weights.values())
    return torch.autograd.grad(along, [*weights.values()], allow_unused=True, materialize_grads=True)


def _mean(found: Sequence[tuple[Tensor, ...]], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean over batches, in float64."""
    sums = [torch.stack([part.double() for part in parts]).mean(0) for parts in zip(*found, strict=True)]
    return dict(zip(weights, sums, strict=True))


# --- the linearised network ---------------------------------------------------------------------------------


def _kind(inputs: Any) -> str:
    numbers = str(inputs.dtype).removeprefix("torch.") if isinstance(inputs, Tensor) else ""
    return f"numbers of the type {numbers}" if numbers else f"several, in a {type(inputs).__name__}"


def _linearised(model: nn.Module) -> nn.Module:
    """A copy in float64 with the absolute values of its parameters, and means of 0 in BatchNorm."""
    made = copy.deepcopy(model).double().eval()
    by_operators(made)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.abs_()
        for part in made.modules():
            if isinstance(part, NORMS) and part.running_mean is not None:
                part.running_mean.zero_()
    return made


def _flows(model: nn.Module, ones: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``|w · ∂R/∂w|`` on the CPU."""
    total = model(ones).sum()
    found = torch.autograd.grad(total, [*weights.values()], allow_unused=True, materialize_grads=True)
    return {n: (w.detach() * g).abs().cpu() for (n, w), g in zip(weights.items(), found, strict=True)}


def _check_linear(model: nn.Module, example: Tensor, dense: bool) -> None:
    """Raise ``UsageError`` unless, without biases, ``t`` times a positive input gives ``t`` times the outputs.

    At inputs that differ from number to number, so that what depends on their ratios alone is noticed, and at factors
    that are far apart, so that what is nearly linear at one scale is noticed at another. Through a layer without
    weights nothing flows: that is no bend where they have been pruned.
    """
    bare = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in bare.named_parameters():
            if "bias" in name.rpartition(".")[2]:
                parameter.zero_()
        drawn = stream(0, "synflow:inputs").uniform(0.5, 1.5, size=tuple(example.shape))
        x = torch.from_numpy(drawn).to(example)
        at_one = _outputs(bare, x)
        largest = float(at_one.abs().max())
        differences = [float((_outputs(bare, t * x) / t - at_one).abs().max()) for t in SCALES]
    if all(d <= LINEAR * largest for d in differences) and (largest > 0 or not dense):  # no NaN is
        return
    raise UsageError(
        "The score 'synflow' is for networks that are positively homogeneous: with |w| for w and without biases, twice "
        "the inputs give twice the outputs, as through ReLU, pooling and BatchNorm. Those of this network do not "
        "(tanh, sigmoid, GELU, softmax, LayerNorm or another bend is in it); take another score, such as 'snip'."
    )


def _outputs(model: nn.Module, x: Tensor) -> Tensor:
    found = model(x)
    if not isinstance(found, Tensor):
        raise UsageError(f"The score 'synflow' sums the outputs, one tensor; the network gives {text(type(found))}.")
    return found
