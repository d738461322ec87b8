"""Curvature over the unpruned coordinates: Hessian-vector products, top eigenvalues, spectral density, trace.

The Hessian is that of the recipe's mean loss over the training set, in evaluation mode, without augmentation, in
float32 at least, with respect to the prunable weights that the mask keeps (D of them). Everything else (biases,
normalisation parameters and statistics) stays where it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lotto import identity, masks
from lotto.data import Split
from lotto.errors import UsageError
from lotto.landscape.subspace import check_not_empty
from lotto.recipe import Recipe
from lotto.streams import stream
from lotto.task import OnStep, Task
from lotto.training.evaluate import BATCH
from lotto.training.network import Network, flushed_denormals
from lotto.weights import Weights, digest

HELD_EXAMPLES = 4 * BATCH
"""Up to so many examples, the first derivatives and their graphs are computed once: half of a product's time."""
NORMS = (nn.modules.batchnorm._BatchNorm,)


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
            (BatchNorm without running statistics, dropout that evaluation mode does not switch off).
    """

    def __init__(
        self,
        recipe: Recipe,
        weights: Weights,
        mask: Mapping[str, Tensor] | None = None,
        split: Split = "train",
        examples: int | None = None,
    ) -> None:
        if recipe.precision == "bfloat16":
            recipe = recipe.replace(precision="float32", channels_last=recipe.uses_channels_last)
        self.recipe = recipe
        mask = masks.ones(recipe) if mask is None else mask
        check_not_empty(mask)
        self.network = Network(recipe, masks.apply(weights, mask))
        module = self.network.module.eval().requires_grad_(False)
        for name, part in module.named_modules():
            if isinstance(part, NORMS) and not part.track_running_stats:
                raise UsageError(
                    f"{name!r} normalises by the statistics of each batch even in evaluation mode, so the loss is not "
                    "a mean over examples; curvature needs running statistics."
                )
        parameters = dict(module.named_parameters(remove_duplicate=False))
        self.parameters = [parameters[name].requires_grad_(True) for name in mask]
        device = self.network.device
        self.index = [keep.flatten().nonzero().squeeze(1).to(device) for keep in mask.values()]
        self.size = sum(len(i) for i in self.index)
        self.split, self.examples = split, examples
        self._held: list[tuple[int, tuple[Tensor, ...]]] = []
        self._check_determined()

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The examples in their own order, not augmented."""
        left = self.examples or self.recipe.arrays.size(self.split)
        for x, y in self.recipe.arrays.to(self.network.device).evaluation(self.split, BATCH):
            yield x[:left], y[:left]
            left -= len(x)
            if left <= 0:
                return

    def _check_determined(self) -> None:
        x, y = next(self.batches())
        with torch.no_grad():
            first, again = (self.recipe.loss_function(self.network(x), y) for _ in range(2))
        if not torch.equal(first, again):
            raise UsageError(
                "The loss of the same batch differs between two evaluations: some module draws random numbers in "
                "evaluation mode (dropout called with training=True?), so there is no Hessian."
            )

    def __matmul__(self, vector: np.ndarray) -> np.ndarray:
        """``H v`` in float64, summed over batches in float64."""
        direction = self._scatter(vector)
        total = torch.zeros(self.size, dtype=torch.float64, device=self.network.device)
        count = 0
        with flushed_denormals():
            for number, first in self._first_derivatives():
                along = [(g, d) for g, d in zip(first, direction, strict=True) if g.requires_grad]
                if along:
                    second = torch.autograd.grad(
                        [g for g, _ in along], self.parameters, [d for _, d in along],
                        retain_graph=bool(self._held), allow_unused=True,
                    )  # fmt: skip
                    total += number * self._gather(second)
                count += number
        return (total / count).cpu().numpy()

    def _first_derivatives(self) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        """Gradients of each batch as functions of the weights; few batches are kept from product to product."""
        if self._held:
            yield from self._held
            return
        keep = (self.examples or self.recipe.arrays.size(self.split)) <= HELD_EXAMPLES
        made = []
        for x, y in self.batches():
            loss = self.recipe.loss_function(self.network(x), y)
            item = len(x), torch.autograd.grad(loss, self.parameters, create_graph=True)
            if keep:
                made.append(item)
            else:
                yield item
        self._held = made
        yield from made

    def gradient(self) -> np.ndarray:
        """The gradient of the same loss over the same coordinates, in float64."""
        total = torch.zeros(self.size, dtype=torch.float64, device=self.network.device)
        count = 0
        for x, y in self.batches():
            loss = self.recipe.loss_function(self.network(x), y)
            total += len(x) * self._gather(torch.autograd.grad(loss, self.parameters))
            count += len(x)
        return (total / count).cpu().numpy()

    def dense(self) -> np.ndarray:
        """The whole matrix, column by column; for small networks."""
        matrix = np.stack([self @ column for column in np.eye(self.size)], axis=1)
        return (matrix + matrix.T) / 2

    def point(self) -> np.ndarray:
        """The unpruned weights, in the order of the coordinates."""
        return self._gather([p.detach() for p in self.parameters]).cpu().numpy()

    def _scatter(self, vector: np.ndarray) -> list[Tensor]:
        flat = torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64)).to(self.network.device)
        made, at = [], 0
        for parameter, index in zip(self.parameters, self.index, strict=True):
            full = torch.zeros(parameter.numel(), dtype=parameter.dtype, device=parameter.device)
            full[index] = flat[at : at + len(index)].to(parameter.dtype)
            made.append(full.view(parameter.shape))
            at += len(index)
        return made

    def _gather(self, tensors: Any) -> Tensor:
        parts = []
        for tensor, parameter, index in zip(tensors, self.parameters, self.index, strict=True):
            flat = torch.zeros_like(parameter) if tensor is None else tensor
            parts.append(flat.reshape(-1)[index].double())
        return torch.cat(parts)


@dataclass(frozen=True)
class Top:
    """The largest eigenvalues.

    Attributes:
        values: eigenvalues that converged, largest first.
        residuals: ``|H v - value v|`` of each.
        converged: whether all that were asked for did.
    """

    values: tuple[float, ...]
    residuals: tuple[float, ...]
    converged: bool


@dataclass(frozen=True)
class Spectrum:
    """The spectral density by stochastic Lanczos quadrature: point masses whose sum is 1.

    Attributes:
        nodes: positions on the eigenvalue axis.
        masses: share of the D eigenvalues that each stands for.
        size: D.
        traces: ``v' H v`` D / ``v' v`` of each probe: estimates of the trace.
    """

    nodes: tuple[float, ...]
    masses: tuple[float, ...]
    size: int
    traces: tuple[float, ...]

    @property
    def trace(self) -> float:
        """Estimate of the sum of all eigenvalues (Hutchinson)."""
        return float(np.mean(self.traces))

    @property
    def trace_error(self) -> float:
        """Standard error of the trace over the probes; NaN for one probe."""
        n = len(self.traces)
        return float(np.std(self.traces, ddof=1)) / math.sqrt(n) if n > 1 else math.nan

    def mean(self, function: Callable[[np.ndarray], np.ndarray]) -> float:
        """Mean of a function over the eigenvalues."""
        return float(np.dot(self.masses, function(np.array(self.nodes))))

    def density(self, at: np.ndarray, width: float) -> np.ndarray:
        """The density with each mass spread as a Gaussian of standard deviation ``width``; integrates to 1."""
        distance = (np.asarray(at)[:, None] - np.array(self.nodes)) / width
        return np.exp(-0.5 * distance**2) @ np.array(self.masses) / (width * math.sqrt(2 * math.pi))


def top(
    recipe: Recipe,
    weights: Weights,
    mask: Mapping[str, Tensor] | None = None,
    k: int = 10,
    *,
    examples: int | None = None,
    tolerance: float = 1e-6,
    iterations: int | None = None,
    seed: int = 0,
) -> Top:
    """The ``k`` largest (algebraic) eigenvalues by the implicitly restarted Lanczos method (``scipy``'s ``eigsh``).

    Args:
        recipe: model, data, loss.
        weights: where.
        mask: the unpruned coordinates.
        k: how many, at least 1 and at most D.
        examples: the first so many training examples; None = all.
        tolerance: relative accuracy at which an eigenvalue counts as converged.
        iterations: at most so many restarts; None = scipy's default.
        seed: of the start vector.

    Returns:
        What converged, with residuals; `Top.converged` is False when that is less than ``k``.
    """
    return top_of(Hessian(recipe, weights, mask, examples=examples), k, tolerance, iterations, seed)


def top_of(
    hessian: Hessian, k: int, tolerance: float = 1e-6, iterations: int | None = None, seed: int = 0,
    on_product: Callable[[], None] = lambda: None,
) -> Top:  # fmt: skip
    """`top` of a Hessian that is already there; calls back after every product."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh  # a second to import

    if not 1 <= k <= hessian.size:
        raise UsageError(f"There are {hessian.size} eigenvalues; asked for {k}.")

    def product(vector: np.ndarray) -> np.ndarray:
        on_product()
        return hessian @ np.asarray(vector).reshape(-1)

    if k >= hessian.size - 1 or hessian.size <= 32:  # ARPACK wants k < D; a small matrix is quicker at once
        matrix = np.stack([product(column) for column in np.eye(hessian.size)], axis=1)
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        values, vectors, converged = values[-k:], vectors[:, -k:], True
    else:
        operator = LinearOperator((hessian.size, hessian.size), matvec=product, dtype=np.float64)
        start = stream(seed, "lanczos").standard_normal(hessian.size)
        try:
            values, vectors = eigsh(operator, k, which="LA", tol=tolerance, maxiter=iterations, v0=start)
            converged = True
        except ArpackNoConvergence as stopped:
            values, vectors, converged = stopped.eigenvalues, stopped.eigenvectors, False
    order = np.argsort(values)[::-1]
    residuals = [float(np.linalg.norm(product(vectors[:, i]) - values[i] * vectors[:, i])) for i in order]
    return Top(tuple(float(values[i]) for i in order), tuple(residuals), converged)


def spectrum(
    recipe: Recipe,
    weights: Weights,
    mask: Mapping[str, Tensor] | None = None,
    *,
    steps: int = 64,
    probes: int = 4,
    examples: int | None = None,
    seed: int = 0,
) -> Spectrum:
    """The spectral density by stochastic Lanczos quadrature (Golub and Welsch; Ghorbani et al., 1901.10159).

    Args:
        recipe: model, data, loss.
        weights: where.
        mask: the unpruned coordinates.
        steps: Lanczos steps of each probe, with full reorthogonalisation: products with the Hessian, nodes.
        probes: random start vectors.
        examples: the first so many training examples; None = all.
        seed: of the probes.
    """
    return spectrum_of(Hessian(recipe, weights, mask, examples=examples), steps, probes, seed)


def spectrum_of(
    hessian: Hessian, steps: int, probes: int, seed: int = 0, on_product: Callable[[], None] = lambda: None
) -> Spectrum:
    """`spectrum` of a Hessian that is already there; calls back after every product."""
    if steps < 1 or probes < 1:
        raise UsageError(f"A spectrum has at least one probe of at least one step; got {probes} of {steps}.")
    nodes: list[float] = []
    shares: list[float] = []
    traces: list[float] = []
    for probe in range(probes):
        # Signs instead of normal numbers: the trace estimate varies least (Hutchinson).
        start = np.where(stream(seed, "probe", probe).random(hessian.size) < 0.5, -1.0, 1.0)
        diagonal, beside = _lanczos(hessian, start, min(steps, hessian.size), on_product)
        traces.append(hessian.size * diagonal[0])
        tridiagonal = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        values, vectors = np.linalg.eigh(tridiagonal)
        nodes += values.tolist()
        shares += (vectors[0] ** 2 / probes).tolist()
    return Spectrum(tuple(nodes), tuple(shares), hessian.size, tuple(traces))


def _lanczos(
    hessian: Hessian, start: np.ndarray, steps: int, on_product: Callable[[], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Diagonal and off-diagonal of the tridiagonal matrix; shorter if the Krylov space is exhausted."""
    basis = [start / np.linalg.norm(start)]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        product = hessian @ basis[-1]
        on_product()
        diagonal.append(float(product @ basis[-1]))
        known = np.stack(basis)
        for _ in range(2):  # once is not enough in floating point, twice is (Kahan)
            product = product - known.T @ (known @ product)
        length = float(np.linalg.norm(product))
        if len(diagonal) == steps or length <= 1e-10 * max(map(abs, diagonal)):
            return np.array(diagonal), np.array(beside)
        beside.append(length)
        basis.append(product / length)


@dataclass(frozen=True, eq=False)
class SpectrumTask(Task):
    """Top eigenvalues and spectral density at one point, as a task for an engine.

    Attributes:
        recipe: model, data, loss.
        weights: where.
        mask: the unpruned coordinates.
        k: top eigenvalues; 0 for none.
        steps, probes: of the spectral density.
        examples: the first so many training examples; None = all.
        seed: of all that is random.
        label: what progress displays call it.
    """

    recipe: Recipe
    weights: Weights
    mask: Mapping[str, Tensor]
    k: int = 1
    steps: int = 64
    probes: int = 4
    examples: int | None = None
    seed: int = 0
    label: str = ""

    def __post_init__(self) -> None:
        check_not_empty(self.mask)
        masks.check_fits(self.mask, self.weights)

    @property
    def description(self) -> dict[str, Any]:
        """See `Task.description`."""
        recipe = self.recipe.identity
        return identity.canonical(
            {
                "schema": identity.SCHEMA,
                "task": "spectrum",
                "recipe": {k: recipe[k] for k in ("model", "data", "loss", "precision")},
                "weights": digest(self.weights),
                "mask": digest(self.mask),
                "k": self.k,
                "steps": self.steps,
                "probes": self.probes,
                "examples": self.examples,
                "seed": self.seed,
            }
        )

    @property
    def size(self) -> int:
        """About one step for each product with the Hessian."""
        return self.steps * self.probes + 10 * self.k

    def execute(self, on_step: OnStep | None = None) -> dict[str, Any]:
        """Compute; returns ``top``, ``residuals``, ``nodes``, ``masses``, ``size``, ``traces``."""
        hessian = Hessian(self.recipe, self.weights, self.mask, examples=self.examples)
        done = 0

        def count() -> None:
            nonlocal done
            done += 1
            if on_step is not None:
                on_step(min(done, self.size), math.nan)

        found = spectrum_of(hessian, self.steps, self.probes, self.seed, count)
        largest = (
            top_of(hessian, min(self.k, hessian.size), seed=self.seed, on_product=count)
            if self.k
            else Top((), (), True)
        )
        return {
            "top": list(largest.values),
            "residuals": list(largest.residuals),
            "nodes": list(found.nodes),
            "masses": list(found.masses),
            "size": found.size,
            "traces": list(found.traces),
        }


def spectrum_from(outcome: Mapping[str, Any]) -> Spectrum:
    """The spectrum that a `SpectrumTask` computed."""
    return Spectrum(tuple(outcome["nodes"]), tuple(outcome["masses"]), outcome["size"], tuple(outcome["traces"]))
