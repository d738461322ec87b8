"""Eigenvalues of a Hessian from products with it: the largest by restarted Lanczos, all of them as a density."""

from __future__ import annotations

import math
from collections.abc import Callable
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
