"""How good the probabilities of a classifier are, from its outputs and the classes of the examples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lotto.core.errors import UsageError

BINS = 15
"""Of the expected calibration error, as many as Guo et al. (1706.04599) have; here of equally many examples."""


def log_loss(logits: Tensor, targets: Tensor) -> float:
    """The mean negative log-likelihood of the targets, in nats.

    Args:
        logits: shape (examples, classes), before the softmax.
        targets: shape (examples,), whole numbers.

    >>> round(log_loss(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])), 4)
    1.0032
    """
    return float(F.cross_entropy(logits.double(), targets))


def brier(logits: Tensor, targets: Tensor) -> float:
    """The mean over examples of the squared distance of the probabilities from 1 at the target and 0 elsewhere.

    Between 0 and 2 (Brier, 1950). Arguments as of `log_loss`.

    >>> brier(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    0.5
    """
    probabilities = logits.double().softmax(1)
    hit = F.one_hot(targets, probabilities.shape[1])
    return float((probabilities - hit).square().sum(1).mean())


def calibration_error(logits: Tensor, targets: Tensor, bins: int = BINS) -> float:
    """The expected calibration error: how far confidence and accuracy are apart, in bins of equally many examples.

    Examples are sorted by their confidence, the probability of the predicted class (equal ones stay in their order),
    and cut into bins whose sizes differ by one at most; the mean over examples of their bin's |accuracy - mean
    confidence|. Equal-mass bins are less biased than those of equal width (Nixon et al., 1904.01685), which leave
    most bins of a good network empty.

    Args:
        logits, targets: as of `log_loss`.
        bins: how many; at most one for each example.

    Raises:
        UsageError: if there are no or more bins than examples.

    >>> sure = torch.tensor([[9.0, 0.0], [9.0, 0.0]])
    >>> round(calibration_error(sure, torch.tensor([0, 1]), bins=1), 4)
    0.4999
    """
    if not 1 <= bins <= len(targets):
        raise UsageError(f"Bins hold at least one example each: 1 to {len(targets)} of them; got {bins}.")
    confidence, predicted = logits.double().softmax(1).max(1)
    order = confidence.argsort(stable=True)
    beyond = confidence - (predicted == targets).double()
    gaps = [part.sum().abs() for part in torch.tensor_split(beyond[order], bins)]
    return float(torch.stack(gaps).sum() / len(targets))
