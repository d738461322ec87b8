"""A user's own training loop, unchanged, on a sparse network: zeros, a count of steps, and snapshots.

Nothing of the loop is known: whatever `torch.optim` optimizers move the model's weights call hooks that are set here.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from lotto.core.check import Whole, checked
from lotto.core.duration import MOST, iterations
from lotto.core.errors import UsageError
from lotto.core.shown import brief
from lotto.core.weights import clone
from lotto.pruning import masks
from lotto.pruning.masks import Mask, MaskLike


class SparseLoop:
    """What `sparse` sees of a loop.

    Attributes:
        mask: what is left of the model's prunable weights.
        steps: steps of the main optimizer so far, from ``start_step``.
        kept: step -> state dict on the CPU, of the steps that were asked for and have come.
        on_step: called with the number of steps after each of the main optimizer.
    """

    def __init__(self, model: nn.Module, mask: Mask, keep: Sequence[int], start_step: int, main: Optimizer | None):
        self.mask, self.steps = mask, start_step
        self.kept: dict[int, dict[str, Tensor]] = {}
        self.on_step: Callable[[int], None] = lambda step: None
        self._model, self._wanted, self._main = model, {*keep}, main
        named = dict(model.named_parameters(remove_duplicate=False))
        masks.check_fits(mask, named)
        self._cut = {named[name]: keep for name, keep in mask.items() if not bool(keep.all())}
        self._prunable = {id(named[name]) for name in mask}
        self._names = {parameter: name for name, parameter in named.items() if parameter in self._cut}
        self._versions: dict[nn.Parameter, int] = {}
        self._examined: weakref.WeakSet[Optimizer] = weakref.WeakSet()

    def zero(self) -> None:
        """Set the pruned weights to 0, once more: after the loop itself has loaded others."""
        for parameter in self._cut:
            self._zero_weights(parameter)

    def _zero_weights(self, parameter: nn.Parameter) -> None:
        self._zero(parameter, parameter)
        self._versions[parameter] = parameter._version

    def check(self, parameters: Iterable[nn.Parameter], when: str) -> None:
        """Raise ``UsageError`` if pruned weights have been given other values than 0 since the last step."""
        for parameter in parameters:
            # Looked at where something has written to it: the values of a GPU would have to be waited for.
            if self._versions[parameter] != parameter._version and bool(parameter[~self._mask_of(parameter)].any()):
                raise UsageError(
                    f"Pruned weights of {self._names[parameter]!r} are not 0 {when}: something other than an optimizer "
                    "has set them (load_state_dict, an average of weights, a wrapper that moves copies). Load weights "
                    "before `with lotto.sparse(...)`, or call .zero() on what it gives right after they are loaded."
                )

    @torch.no_grad()
    def _zero(self, tensor: Tensor, parameter: nn.Parameter) -> None:
        # Assigned, not multiplied: what has become infinite or NaN is 0 as well.
        tensor.masked_fill_(~self._mask_of(parameter), 0)

    def _mask_of(self, parameter: nn.Parameter) -> Tensor:
        keep = self._cut[parameter]
        if keep.device != parameter.device:  # the loop has moved the model meanwhile
            keep = self._cut[parameter] = keep.to(parameter.device)
        return keep

    def _take(self) -> None:
        if self.steps in self._wanted:
            state = self._model.state_dict()
            self.kept[self.steps] = clone({n: t for n, t in state.items() if isinstance(t, Tensor)})

    def _gradient(self, parameter: nn.Parameter, gradient: Tensor) -> Tensor:
        # A gradient that is not finite stays so where weights are kept, and is none where they are not.
        return gradient.masked_fill(~self._mask_of(parameter), 0)

    def _begins_step(self, optimizer: Optimizer) -> None:
        """Before each step of any optimizer: what its loss was of had no pruned weights."""
        self.check([p for group in optimizer.param_groups for p in group["params"] if p in self._cut], "before a step")

    def _stepped(self, optimizer: Optimizer) -> None:
        """After each step of any optimizer: what it has moved is put back to 0, its moments too."""
        moved = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if not any(id(parameter) in self._prunable for parameter in moved):
            return
        for parameter in moved:
            if parameter in self._cut:
                self._zero_weights(parameter)
                for tensor in self._moments(optimizer, parameter):
                    self._zero(tensor, parameter)
        self._examined.add(optimizer)
        self._main = optimizer if self._main is None else self._main
        if optimizer is self._main:
            self.steps += 1
            self._take()
            self.on_step(self.steps)

    def _moments(self, optimizer: Optimizer, parameter: nn.Parameter) -> Iterator[Tensor]:
        """What an optimizer remembers of each weight.

        Raises:
            UsageError: if it remembers something that is of several weights at once.
        """
        for name, value in optimizer.state.get(parameter, {}).items():
            if not isinstance(value, Tensor) or value.numel() == 1 < parameter.numel():
                continue  # a number of steps
            if value.shape == parameter.shape:
                yield value
            elif optimizer not in self._examined:
                raise UsageError(
                    f"{type(optimizer).__name__} keeps {name!r} of shape {tuple(value.shape)} for weights of shape "
                    f"{tuple(parameter.shape)}: what it remembers of pruned weights cannot be set to 0. Take an "
                    "optimizer whose moments have the shape of the weights (SGD, Adam, AdamW, RMSprop, ...)."
                )

    def __repr__(self) -> str:
        return f"SparseLoop({self.mask!r}, {self.steps} steps, kept={brief([*self.kept])})"


@contextmanager
@checked
def sparse(
    model: nn.Module,
    mask: MaskLike | None = None,
    *,
    keep: Sequence[int | str] = (),
    start_step: Whole = 0,
    main: Optimizer | None = None,
) -> Iterator[SparseLoop]:
    """Train a sparse network in a loop of one's own: inside, pruned weights are and stay 0.

    Gradients of pruned weights are 0 before any clipping sees them; after every step of every `torch.optim.Optimizer`
    the pruned weights that it moves are set to 0, and so is what it remembers of them. It works inside loops of others,
    too (Lightning, Accelerate, Hugging Face), and with several optimizers.

    Args:
        model: the network; its weights are changed in place.
        mask: what is left; None = everything, to count steps and take snapshots alone.
        keep: steps of the main optimizer whose weights are kept, ``500`` or ``"500it"``, in `SparseLoop.kept`; 0 is how
            it begins.
        start_step: the step at which the loop begins: that of the rewind point.
        main: the optimizer whose steps count; None = the first that moves a prunable weight.

    Yields:
        The mask, the number of steps so far, and what was kept.

    Raises:
        UsageError: for a mask that does not fit, a step that is no number of iterations; at the first step, for an
            optimizer whose moments cannot be masked; at a step and at the end, if something else than an optimizer has
            given pruned weights other values.

    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> mask = lotto.pruning.prune(model.state_dict(), lotto.pruning.masks.ones(model), 0.5)
    >>> optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    >>> with lotto.sparse(model, mask, keep=[1]) as loop:
    ...     for _ in range(3):
    ...         optimizer.zero_grad()
    ...         model(torch.ones(1, 4)).square().sum().backward()
    ...         optimizer.step()
    >>> loop.steps, [*loop.kept], bool(model[0].weight[~mask["0.weight"]].any())
    (3, [1], False)
    """
    found = masks.ones(model) if mask is None else Mask(mask)
    loop = SparseLoop(model, found, _steps(keep, start_step), start_step, main)
    handles: list[Any] = [
        parameter.register_hook(lambda gradient, of=parameter: loop._gradient(of, gradient))
        for parameter in loop._cut
        if parameter.requires_grad
    ]
    handles.append(register_optimizer_step_pre_hook(lambda optimizer, *_: loop._begins_step(optimizer)))
    handles.append(register_optimizer_step_post_hook(lambda optimizer, *_: loop._stepped(optimizer)))
    try:
        loop.zero()
        loop._take()
        yield loop
        loop.check(loop._cut, "at the end of the loop")
    finally:
        for handle in handles:
            handle.remove()


def _steps(keep: Sequence[int | str], start: int) -> list[int]:
    steps = [iterations(step, MOST + 1) for step in keep]
    for step in steps:
        if step < start:
            raise UsageError(f"keep={step} is before start_step={start}: the loop begins there.")
    return steps
