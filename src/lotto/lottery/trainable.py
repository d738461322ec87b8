"""A network and a training loop of one's own, in a recipe's place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lotto.core.check import checked
from lotto.recipe.own_loop import OwnData, OwnLoop, error
from lotto.recipe.recipe import Recipe
from lotto.training.own_loop import check_fit


@checked
def Trainable(
    model: Callable[[], nn.Module],
    fit: Callable[..., Mapping[str, float]],
    *,
    init: Mapping[str, Tensor] | str | Path | None = None,
    evaluate: Callable[..., Mapping[str, float]] | None = None,
    loss: Callable[..., Any] | None = None,
    batches: Callable[..., Iterable[Any]] | None = None,
    key: str = "",
    name: str = "",
    tolerance: float | str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    device: str = "auto",
) -> Recipe:
    """A recipe whose whole training is a loop of one's own: plain, Lightning, Hugging Face, Accelerate, ...

    ``fit(model, *, start_step, seed)`` trains the given module in place and returns its metrics, numbers by name;
    ``error`` is the one that decides, and smaller is better. lotto calls it for every training, as one job: it is
    remembered, runs in workers, has controls and a verdict with its interval. Inside, `lotto.sparse` holds. The rewind
    point is taken at the k-th step of the main optimizer; a level is called with ``start_step=k``, where the loop's own
    schedule is to go on, and ``seed`` is its data order's. Global generators are seeded before each call.

    With ``evaluate``, paths between networks, their barriers and instability can be had; with ``loss`` and ``batches``,
    curvature, scores of gradients, and BatchNorm statistics re-estimated on paths. Without them these refuse, and
    adaptive pruning always does.

    Args:
        model: a class or a function that builds the network.
        fit: the loop.
        init: weights at which every training begins, a state dict or a safetensors file; None = drawn by ``model``,
            another set for every seed.
        evaluate: ``evaluate(model)`` returns numbers by name, ``error`` and ``loss`` of the test examples, for a model
            in evaluation mode with whatever weights; ``evaluate(model, split)`` those of ``"train"`` or ``"test"``.
        loss: ``loss(model, batch)`` returns the mean loss over the examples of a batch, a tensor; or, where it is a
            mean over something else, the sum and its weight: ``(total, tokens)``.
        batches: ``batches()`` returns the training batches, anew at each call: a ``DataLoader``, a generator. What it
            draws from global generators is the same each time.
        key: a text that tells one version from another. The code of ``fit`` and all that it reaches is in a run's key
            in any case; what no key can cover (files, the clock) makes runs that are trained and not remembered.
        name: what tables call it; default the loop's.
        tolerance: how far a matching level's mean error may lie above the dense one: a number in the error's unit, or
            a part of it, ``"5%"``, which is the default.
        include, exclude: patterns of what is pruned as well, and of what is not.
        device: where the model is when the loop gets it: ``auto`` (CUDA if there is one), ``cpu``, ``cuda``.

    Raises:
        UsageError: if the loop cannot be called so.

    >>> def fit(model, *, start_step, seed):
    ...     generator = torch.Generator().manual_seed(seed)
    ...     optimizer = torch.optim.SGD(model.parameters(), 0.1)
    ...     for step in range(start_step, 30):
    ...         x = torch.randn(16, 4, generator=generator)
    ...         loss = (model(x)[:, 0] - x[:, 0]).square().mean()
    ...         optimizer.zero_grad(), loss.backward(), optimizer.step()
    ...     return {"error": loss.item()}
    >>> trainable = Trainable(lambda: torch.nn.Linear(4, 2), fit, tolerance=0.1)
    >>> result = lotto.imp(trainable, densities=[0.5], rewind_to="5it", replicates=2, controls=(), jobs=1)
    >>> result.ticket(level=1).density
    0.5
    """
    loop = OwnLoop(fit, key, evaluate, loss, batches)
    check_fit(loop)
    given: dict[str, Any] = {} if tolerance is None else {"tolerance": tolerance}
    return Recipe(
        model, OwnData(), error=error, evaluations=0, pretrained=init, loop=loop, include=include, exclude=exclude,
        device=device, name=name or getattr(fit, "__name__", type(fit).__name__), **given,
    )  # fmt: skip
