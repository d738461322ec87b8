"""The Hessian over the unpruned coordinates, as something that multiplies vectors.

It is that of the recipe's mean loss over the training set, in evaluation mode, without augmentation, in float32 at
least, with respect to the prunable weights that the mask keeps (D of them). Everything else (biases, normalisation
parameters and statistics, what is frozen) stays where it is. A shared weight is one variable; what the loss does not
depend on has rows of zeros. Products of convolutional networks on the CPU are by kernels where these are quicker
(`by_kernels`) and agree with autograd's on a few examples; else they are autograd's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lotto.core.check import Count, checked
from lotto.core.errors import UsageError, text
from lotto.core.weights import Weights
from lotto.data import Split
from lotto.landscape.batchnorm import NORMS
from lotto.landscape.curvature.by_kernels import ByKernels, KernelProducts, by_kernels
from lotto.landscape.curvature.mean_loss import LossOfRecipe, MeanLoss, mean_loss
from lotto.landscape.subspace import check_not_empty
from lotto.pruning import masks
from lotto.pruning.masks import MaskLike
from lotto.recipe.recipe import Recipe
from lotto.training.network import Network, flushed_denormals
from lotto.training.outputs import fits

CLOSE = 0.01
"""Of a product's norm: how far kernels may be from autograd. A ReLU that rounding turns to the other side shows."""


@checked
class Hessian:
    """The Hessian as something that multiplies vectors of length D; symmetric up to rounding.

    Args:
        recipe: model, data, loss.
        weights: a whole state dict; pruned weights are taken as 0.
        mask: the unpruned coordinates; None = all prunable weights.
        split: the examples that the loss is averaged over.
        examples: the first so many of them; None = all.

    Raises:
        UsageError: if nothing is unpruned, the mask does not fit, or the loss is not a function of the weights
            (BatchNorm without running statistics, dropout that evaluation mode does not switch off); in products, if
            it cannot be differentiated twice.

    >>> hessian = Hessian(recipe, weights, mask, examples=50)
    >>> vector = np.ones(hessian.size)
    >>> (hessian @ vector).shape, hessian.gradient().shape
    ((384,), (384,))
    """

    def __init__(
        self,
        recipe: Recipe,
        weights: Weights,
        mask: MaskLike | None = None,
        split: Split = "train",
        examples: Count | None = None,
    ) -> None:
        if recipe.precision == "bfloat16":
            recipe = recipe.replace(precision="float32", channels_last=recipe.uses_channels_last)
        self.recipe = recipe
        mask = masks.ones(recipe) if mask is None else mask
        check_not_empty(mask)
        self.network = Network(recipe, masks.apply(weights, masks.cover_shared(mask, recipe.meta_model())))
        module = self.network.module.eval()
        parameters = _variables(module, mask)
        self.mask = {name: mask[name] for name in parameters}
        check_not_empty(self.mask)
        module.requires_grad_(False)
        for name, part in module.named_modules():
            if isinstance(part, NORMS) and not part.track_running_stats:
                raise UsageError(
                    f"{name!r} normalises by the statistics of each batch even in evaluation mode, so the loss is not "
                    "a mean over examples; curvature needs running statistics."
                )
        kernels = by_kernels(recipe, self.network)
        _fix_statistics(module, parameters.values())
        self.parameters = [parameter.requires_grad_(True) for parameter in parameters.values()]
        device = self.network.device
        self.index = [keep.flatten().nonzero().squeeze(1).to(device) for keep in self.mask.values()]
        self.size = sum(len(i) for i in self.index)
        self.loss: MeanLoss = mean_loss(recipe, self.network, split, examples)
        self._held: list[tuple[float, tuple[Tensor | None, ...]]] = []
        with torch.no_grad(), twice_differentiable(module):
            self.loss.check()
        self.kernels = None if kernels is None else self._proved(kernels)

    def batches(self) -> Iterator[Any]:
        """The examples in their own order, not augmented."""
        yield from self.loss.batches()

    def __matmul__(self, vector: np.ndarray) -> np.ndarray:
        """``H v`` in float64, summed over batches in float64."""
        if not isinstance(vector, np.ndarray) or vector.shape != (self.size,) or vector.dtype.kind not in "biuf":
            raise UsageError(f"A Hessian multiplies an array of shape ({self.size},); got {text(vector)}.")
        vector = np.ascontiguousarray(vector, dtype=np.float64)
        with flushed_denormals():
            if self.kernels is not None:
                return self.kernels.product(vector)
            direction = self._scatter(vector)
            total = torch.zeros(self.size, dtype=torch.float64, device=self.network.device)
            count = 0.0
            for weight, first in self._first_derivatives():
                if (second := self._along(first, direction)) is not None:
                    total += weight * second
                count += weight
        return (total / count).cpu().numpy()

    def _along(self, first: Sequence[Tensor | None], direction: Sequence[Tensor]) -> Tensor | None:
        """How gradients of a batch move with the weights; None if they do not."""
        pairs = zip(first, direction, strict=True)
        along = [(g, d) for g, d in pairs if g is not None and g.requires_grad]
        if not along:
            return None
        with _explained():
            second = torch.autograd.grad(
                [g for g, _ in along], self.parameters, [d for _, d in along],
                retain_graph=bool(self._held), allow_unused=True,
            )  # fmt: skip
        return self._gather(second)

    def _proved(self, how: ByKernels) -> KernelProducts | None:
        """Products by kernels, if they are what autograd's are: one of a few examples is compared."""
        masked = all(keep.dim() > 1 for keep in self.mask.values())
        if not (isinstance(self.loss, LossOfRecipe) and self.loss.adds_up and masked):
            return None
        kernels = KernelProducts(self.loss, self.network.module, how, self.mask, self.index)
        batch = next(self.loss.batches(kernels.batch))
        if not fits(self.recipe, batch.inputs):
            return None
        vector = np.random.default_rng(0).standard_normal(self.size)
        with flushed_denormals():
            try:
                expected = self._along(self._gradients(batch, create_graph=True)[1], self._scatter(vector))
            except UsageError:  # the product that is asked for says so
                return None
            if expected is None:
                return None
            difference = np.linalg.norm(kernels.product(vector, first=True) - expected.numpy())
        return kernels if difference <= CLOSE * float(expected.norm()) else None

    def _first_derivatives(self) -> Iterator[tuple[float, tuple[Tensor | None, ...]]]:
        """Gradients of each batch as functions of the weights; few batches are kept from product to product."""
        if self._held:
            yield from self._held
            return
        keep, made = self.loss.is_small, []
        for batch in self.batches():
            item = self._gradients(batch, create_graph=True)
            if not item[0]:  # of no target
                continue
            if keep:
                made.append(item)
            else:
                yield item
        self._held = made
        yield from made

    def _gradients(self, batch: Any, create_graph: bool = False) -> tuple[float, tuple[Tensor | None, ...]]:
        """Of one batch, and its weight in the mean; None for what its loss does not depend on."""
        with twice_differentiable(self.network.module):
            loss, weight = self.loss.of(batch)
            if not weight or not loss.requires_grad:
                return weight, (None,) * len(self.parameters)
            with _explained(), _watched(loss) if create_graph else contextlib.nullcontext():
                found = torch.autograd.grad(loss, self.parameters, create_graph=create_graph, allow_unused=True)
            return weight, found

    def gradient(self) -> np.ndarray:
        """The gradient of the same loss over the same coordinates, in float64."""
        total = torch.zeros(self.size, dtype=torch.float64, device=self.network.device)
        count = 0.0
        for batch in self.batches():
            weight, found = self._gradients(batch)
            if weight:
                total += weight * self._gather(found)
                count += weight
        return (total / count).cpu().numpy()

    def dense(self) -> np.ndarray:
        """The whole matrix, column by column; for small networks."""
        matrix = np.stack([self @ column for column in np.eye(self.size)], axis=1)
        return (matrix + matrix.T) / 2

    def point(self) -> np.ndarray:
        """The unpruned weights, in the order of the coordinates."""
        return self._gather([p.detach() for p in self.parameters]).cpu().numpy()

    def coordinates(self, mask: MaskLike) -> np.ndarray:
        """Which of the coordinates another mask keeps, boolean, shape (D,)."""
        return np.concatenate([mask[n][keep.to(mask[n].device)].bool().cpu().numpy() for n, keep in self.mask.items()])

    def _scatter(self, vector: np.ndarray) -> list[Tensor]:
        flat = torch.from_numpy(vector).to(self.network.device)
        made, at = [], 0
        for parameter, index in zip(self.parameters, self.index, strict=True):
            full = torch.zeros(parameter.numel(), dtype=parameter.dtype, device=parameter.device)
            full[index] = flat[at : at + len(index)].to(parameter.dtype)
            made.append(full.view(parameter.shape))
            at += len(index)
        return made

    def _gather(self, tensors: Sequence[Tensor | None]) -> Tensor:
        parts = []
        for tensor, parameter, index in zip(tensors, self.parameters, self.index, strict=True):
            flat = torch.zeros_like(parameter) if tensor is None else tensor
            parts.append(flat.reshape(-1)[index].double())
        return torch.cat(parts)


@contextlib.contextmanager
def twice_differentiable(module: nn.Module) -> Iterator[None]:
    """Forward by kernels that have second derivatives: fused attention has none, nor have cuDNN's recurrent layers."""
    fast, cudnn = torch.backends.mha.get_fastpath_enabled(), torch.backends.cudnn.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.cudnn.enabled = cudnn and not any(isinstance(part, nn.RNNBase) for part in module.modules())
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.backends.cudnn.enabled = cudnn


@contextlib.contextmanager
def _watched(loss: Tensor) -> Iterator[None]:
    """Notice a function of the user's own whose backward is cut off from the graph: torch would take it as constant."""
    seen, nodes, handles = {loss.grad_fn}, [loss.grad_fn], []
    while nodes:
        node: Any = nodes.pop()
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            handles.append(node.register_hook(partial(_check_connected, type(node).__name__)))
        following = {n for n, _ in node.next_functions if n is not None} - seen
        seen |= following
        nodes.extend(following)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_connected(name: str, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor | None]) -> None:
    """A gradient is linear in the one that it is made of: where that depends on the weights, so does it, or it is 0."""
    if not any(g is not None and g.requires_grad for g in outputs):
        return
    for g in inputs:
        cut = g is not None and ("Error" in g.grad_fn.name() if g.grad_fn else bool(g.any()))
        if cut:
            raise RuntimeError(f"the backward of {name.removesuffix('Backward')} is not itself differentiable")


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """What has no derivative, or no second one, in one sentence."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"The loss cannot be differentiated twice, as curvature needs: {reason[:200]}") from error


def _fix_statistics(module: nn.Module, variables: Iterable[nn.Parameter]) -> None:
    """BatchNorm in evaluation mode is one multiplication and one sum, of which a second derivative is far cheaper."""
    moved = {id(parameter) for parameter in variables}
    for part in module.modules():
        plain = type(part) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d) and "forward" not in vars(part)
        if not plain or part.training or {id(p) for p in part.parameters()} & moved:
            continue
        assert isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
        if part.running_mean is None or part.running_var is None:
            continue
        with torch.no_grad():
            scale = (part.running_var + part.eps).rsqrt()
            scale = scale if part.weight is None else scale * part.weight
            shift = -part.running_mean * scale
            shift = shift if part.bias is None else shift + part.bias
        part.forward = partial(_affine, scale, shift)  # type: ignore[method-assign]


def _affine(scale: Tensor, shift: Tensor, x: Tensor) -> Tensor:
    shape = (1, -1, *[1] * (x.dim() - 2))
    return torch.addcmul(shift.view(shape), x, scale.view(shape))


def _variables(module: nn.Module, mask: MaskLike) -> dict[str, nn.Parameter]:
    """The parameters of a mask that are trained, a shared one under its first name."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    found: dict[int, str] = {}
    for name in mask:
        if name not in parameters:
            raise UsageError(f"Curvature is over parameters; the mask has {name!r}, which is none.")
        if parameters[name].requires_grad:
            found.setdefault(id(parameters[name]), name)
    return {name: parameters[name] for name in found.values()}
