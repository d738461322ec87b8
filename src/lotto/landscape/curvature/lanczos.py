"""Eigenvalues of a Hessian from products with it: the largest by restarted Lanczos, all of them as a density."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from lotto.core.check import Positive, checked
from lotto.core.errors import UsageError, text
from lotto.core.rng import stream
from lotto.core.shown import shown
from lotto.landscape.curvature.operator import Hessian

ONE_THREAD: dict[str, Any] = {"limits": 1, "user_api": "blas"}
"""Threads of NumPy's and scipy's BLAS would fight with torch's over the cores, product by product: half of the time."""


@dataclass(frozen=True)
class Top:
    """The largest eigenvalues.

    Attributes:
        values: eigenvalues that converged, largest first.
        residuals: ``|H v - value v|`` of each.
        converged: whether all that were asked for did.

    >>> Top(values=(4.0, 1.5), residuals=(1e-7, 1e-7), converged=True).values[0]
    4.0
    """

    values: tuple[float, ...]
    residuals: tuple[float, ...]
    converged: bool

    __repr__ = shown


@dataclass(frozen=True)
class Spectrum:
    """The spectral density by stochastic Lanczos quadrature: point masses whose sum is 1.

    Attributes:
        nodes: positions on the eigenvalue axis.
        masses: fraction of the D eigenvalues that each stands for.
        size: D.
        traces: ``v' H v`` D / ``v' v`` of each probe: estimates of the trace.
        noise: eigenvalues below it, of either sign, cannot be told from 0: the rounding error of a product. 0 where
            nobody has measured it.

    >>> spectrum = Spectrum(nodes=(0.0, 10.0), masses=(0.75, 0.25), size=100, traces=(240.0, 260.0))
    >>> spectrum.trace, spectrum.mean(np.square)
    (250.0, 25.0)
    """

    nodes: tuple[float, ...]
    masses: tuple[float, ...]
    size: int
    traces: tuple[float, ...]
    noise: float = 0.0

    @property
    def trace(self) -> float:
        """Estimate of the sum of all eigenvalues (Hutchinson)."""
        return float(np.mean(self.traces))

    @property
    def trace_error(self) -> float:
        """Standard error of the trace over the probes; NaN for one probe."""
        n = len(self.traces)
        return float(np.std(self.traces, ddof=1)) / math.sqrt(n) if n > 1 else math.nan

    @checked
    def mean(self, function: Callable[[np.ndarray], np.ndarray]) -> float:
        """Mean of a function over the eigenvalues."""
        return float(np.dot(self.masses, function(np.array(self.nodes))))

    @checked
    def density(self, at: np.ndarray, width: Positive) -> np.ndarray:
        """The density with each mass spread as a Gaussian of standard deviation ``width``; integrates to 1."""
        at = np.atleast_1d(at)
        if at.ndim > 1:
            raise UsageError(f"The density is that at positions along one axis; got {text(at)}.")
        distance = (np.asarray(at)[:, None] - np.array(self.nodes)) / width
        return np.exp(-0.5 * distance**2) @ np.array(self.masses) / (width * math.sqrt(2 * math.pi))

    __repr__ = shown


def top_of(
    hessian: Hessian, k: int, tolerance: float = 1e-6, iterations: int | None = None, seed: int = 0,
    on_product: Callable[[], None] = lambda: None,
) -> Top:  # fmt: skip
    """`top` of a Hessian that is already there; calls back after every product."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh  # a second to import

    check_k(k, hessian.size)

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
            with threadpool_limits(**ONE_THREAD):  # here, where scipy's BLAS has been loaded
                values, vectors = eigsh(operator, k, which="LA", tol=tolerance, maxiter=iterations, v0=start)
            converged = True
        except ArpackNoConvergence as stopped:
            values, vectors, converged = stopped.eigenvalues, stopped.eigenvectors, False
    order = np.argsort(values)[::-1]
    residuals = [float(np.linalg.norm(product(vectors[:, i]) - values[i] * vectors[:, i])) for i in order]
    return Top(tuple(float(values[i]) for i in order), tuple(residuals), converged)


def check_k(k: int, size: int) -> None:
    """Raise ``UsageError`` unless there are ``k`` of ``size`` eigenvalues."""
    if not 1 <= k <= size:
        raise UsageError(f"There are {size} eigenvalues; asked for {k}.")


@threadpool_limits.wrap(**ONE_THREAD)
def spectrum_of(
    hessian: Hessian, steps: int, probes: int, seed: int = 0, on_product: Callable[[], None] = lambda: None
) -> Spectrum:
    """`spectrum` of a Hessian that is already there; calls back after every product."""
    if steps < 1 or probes < 1:
        raise UsageError(f"A spectrum has at least one probe of at least one step; got {probes} of {steps}.")
    grown = []
    for probe in range(probes):
        krylov = Krylov(hessian, signs(seed, probe, hessian.size))
        krylov.grow(steps, on_product)
        krylov.forget()
        grown.append(krylov)
    return joined(grown)


def signs(seed: int, probe: int, size: int) -> np.ndarray:
    """A probe: signs instead of normal numbers, of which the trace estimate varies least (Hutchinson)."""
    return np.where(stream(seed, "probe", probe).random(size) < 0.5, -1.0, 1.0)


class Krylov:
    """The Lanczos process of one start vector, with full reorthogonalisation; it can be taken up again.

    Its first m steps are the same however many follow, so that one process has the quadratures of all lengths.

    Args:
        hessian: what multiplies.
        start: shape (D,), not 0.
    """

    def __init__(self, hessian: Hessian, start: np.ndarray) -> None:
        self.hessian = hessian
        self.basis = np.empty((0, hessian.size))
        self.next: np.ndarray | None = start / np.linalg.norm(start)
        self.diagonal: list[float] = []
        self.beside: list[float] = []
        self.quadratures: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def steps(self) -> int:
        """How many there have been."""
        return len(self.diagonal)

    @property
    def ended(self) -> bool:
        """Whether the Krylov space is exhausted, so that the quadrature is exact."""
        return self.next is None

    def grow(self, steps: int, on_product: Callable[[], None] = lambda: None) -> None:
        """Go on until there are so many steps, or the space is exhausted; calls back after every product."""
        steps = min(steps, self.hessian.size)
        if steps > len(self.basis):
            self.basis = np.concatenate([self.basis, np.empty((steps - len(self.basis), self.hessian.size))])
        while self.steps < steps and self.next is not None:
            self.basis[self.steps] = self.next
            product = self.hessian @ self.next
            on_product()
            self.diagonal.append(float(product @ self.next))
            known = self.basis[: self.steps]
            for _ in range(2):  # once is not enough in floating point, twice is (Kahan)
                product = product - known.T @ (known @ product)
            length = float(np.linalg.norm(product))
            if self.steps == self.hessian.size or length <= 1e-10 * max(map(abs, self.diagonal)):
                self.next = None
            else:
                self.beside.append(length)
                self.next = product / length

    def forget(self) -> None:
        """Give the memory of the basis back; there are no further steps."""
        self.basis, self.next = np.empty((0, self.hessian.size)), None

    def quadrature(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Nodes and masses, whose sum is 1, of the first so many steps."""
        steps = min(steps, self.steps)
        if steps not in self.quadratures:
            beside = self.beside[: steps - 1]
            values, vectors = np.linalg.eigh(np.diag(self.diagonal[:steps]) + np.diag(beside, 1) + np.diag(beside, -1))
            self.quadratures[steps] = values, vectors[0] ** 2
        return self.quadratures[steps]


def joined(grown: Sequence[Krylov], steps: int = sys.maxsize) -> Spectrum:
    """The mean of the quadratures of several probes' first steps."""
    nodes: list[float] = []
    masses: list[float] = []
    for krylov in grown:
        values, shares = krylov.quadrature(steps)
        nodes += values.tolist()
        masses += (shares / len(grown)).tolist()
    size = grown[0].hessian.size
    return Spectrum(tuple(nodes), tuple(masses), size, tuple(size * k.diagonal[0] for k in grown))
