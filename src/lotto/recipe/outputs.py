"""What a network returns, and which part of it is the prediction: the tensor that losses and errors read.

A tensor is itself the prediction. Of a tuple, a dict or an object such as Hugging Face's ``ModelOutput`` it is the
entry that the recipe names, else ``logits``, else the first tensor that has axes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from lotto.core.errors import UsageError, text

LOGITS = "logits"
Entry = str | int
"""The name of an entry of a mapping or an object, or the place in a tuple."""


class WithLoss(NamedTuple):
    """What is kept of a network that computes its own loss.

    Attributes:
        prediction: what an error reads.
        loss: the mean over the batch, without axes; None if the network was given no labels.
    """

    prediction: Tensor
    loss: Tensor | None


def entries(outputs: Any) -> dict[Entry, Any]:
    """The entries of what a network returned, by name or by place.

    >>> entries((1, 2)), entries({"logits": 3})
    ({0: 1, 1: 2}, {'logits': 3})
    """
    if isinstance(outputs, Mapping):
        return dict(outputs)
    if hasattr(outputs, "_fields"):
        return dict(outputs._asdict())
    if isinstance(outputs, tuple | list):
        return dict(enumerate(outputs))
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        return {field.name: getattr(outputs, field.name) for field in dataclasses.fields(outputs)}
    return dict(getattr(outputs, "__dict__", {}))


def chosen(outputs: Any, output: Entry | None = None) -> Entry:
    """Which entry is the prediction.

    Args:
        outputs: what a network returned, no tensor.
        output: the entry that was asked for; None = ``logits``, else the first tensor with axes.

    Raises:
        UsageError: if there is none.

    >>> chosen({"loss": torch.ones(()), "hidden": torch.ones(2, 3), "logits": torch.ones(2, 5)})
    'logits'
    """
    found = entries(outputs)
    tensors = [name for name, value in found.items() if isinstance(value, Tensor) and value.dim()]
    if output is not None:
        if isinstance(outputs, tuple) and isinstance(output, int) and output < len(outputs):
            found |= {output: outputs[output]}
        if isinstance(found.get(output), Tensor):
            return output
        known = f"there are {', '.join(map(repr, tensors))}" if tensors else "there is none"
        raise UsageError(f"output={output!r} is no tensor of what the network returns, {_kind(outputs)}: {known}.")
    if LOGITS in tensors:
        return LOGITS
    if not tensors:
        raise UsageError(
            f"The network returns {_kind(outputs)} without a tensor that has the examples along its first axis, so "
            "there is no prediction: return one tensor, or name the entry that is one, output=..."
        )
    return tensors[0]


def prediction(outputs: Any, output: Entry | None = None) -> Tensor:
    """The prediction among what a network returned.

    Args:
        outputs: a tensor, or tensors in a tuple, a mapping or an object.
        output: see `chosen`; of a network that returns one tensor there is no choice.

    Raises:
        UsageError: if there is none.

    >>> prediction((torch.ones(2, 3), torch.zeros(2)), output=1)
    tensor([0., 0.])
    """
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, WithLoss):
        return outputs.prediction
    name = chosen(outputs, output)
    found: Tensor = outputs[name] if isinstance(name, int) else entries(outputs)[name]
    return found


@dataclasses.dataclass(frozen=True)
class OfPrediction:
    """An error of a network that computes its own loss, and so says by its labels what is predicted where.

    Attributes:
        objective: a function of (outputs, targets).
        shift: how many places behind its output a target of a sequence is, 1 for a causal language model.
    """

    objective: Callable[[Tensor, Tensor], Tensor]
    shift: int = 0

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        """Of the predictions, each beside its target."""
        return self.objective(*self.aligned(outputs, targets))

    def aligned(self, outputs: Any, targets: Any) -> tuple[Tensor, Any]:
        """Outputs of a sequence with the classes along the second axis, as torch's losses read them, and targets."""
        outputs = prediction(outputs)
        if isinstance(targets, Tensor) and targets.dim() == 2 and outputs.shape[:-1] == targets.shape:
            kept = targets.shape[1] - self.shift
            outputs, targets = outputs[:, :kept].movedim(-1, 1), targets[:, self.shift :]
        return outputs, targets


def own_loss(outputs: Any) -> Tensor:
    """The loss that a network has computed by itself.

    Raises:
        UsageError: if it has computed none.
    """
    loss = outputs.loss if isinstance(outputs, WithLoss) else _loss(outputs)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"it returns {_kind(outputs)}" if loss is None else f"its loss is {text(loss)}"
        raise UsageError(
            "loss='model' takes the loss that the model computes when it is given labels=: one number, the entry or "
            f"attribute `loss` of what it returns, or the first of a tuple; {got}."
        )
    return loss.reshape(())


def with_loss(outputs: Any, output: Entry | None = None) -> WithLoss:
    """The prediction and the loss of a network that was given labels; without labels there is no loss."""
    loss = _loss(outputs)
    return WithLoss(prediction(outputs, output), loss if loss is None else own_loss(outputs))


def _loss(outputs: Any) -> Any:
    if isinstance(outputs, tuple | list) and not hasattr(outputs, "_fields"):  # as transformers does, return_dict=False
        return outputs[0] if outputs and isinstance(outputs[0], Tensor) and not outputs[0].dim() else None
    return None if isinstance(outputs, Tensor) else entries(outputs).get("loss")


def _kind(outputs: Any) -> str:
    name = type(outputs).__name__
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"
