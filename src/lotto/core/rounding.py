"""How float32 products, convolutions and recurrent layers are rounded: torch's switches as a value.

torch has two generations of them, of which the older one raises an error where the newer one was used; and what is not
said of an operation is what is said of all (`torch.backends.fp32_precision`). They are read one by one here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

OPERATIONS = {"products": "matmul", "convolutions": "conv", "recurrent layers": "rnn"}
BACKENDS = {"cpu": ("mkldnn", "mkldnn", "mkldnn"), "cuda": ("cuda", "cudnn", "cudnn")}
"""For each type of device, whose switches the operations follow."""
FULL = ("none", "ieee")
LEGACY = {"float32": "highest", "tf32": "high", "bf16": "medium"}


@dataclass(frozen=True)
class Rounding:
    """torch's switches in a process.

    Attributes:
        matmul: what `torch.get_float32_matmul_precision` says; empty where newer switches contradict each other.
        cudnn: what `torch.backends.cudnn.allow_tf32` says; None likewise.
        switches: (name below `torch.backends`, what it is set to); none before torch 2.9.

    >>> Rounding.of_this_process().matmul
    'highest'
    """

    matmul: str
    cudnn: bool | None
    switches: tuple[tuple[str, str], ...]

    @classmethod
    def of_this_process(cls) -> Rounding:
        """The switches now."""
        try:
            matmul = torch.get_float32_matmul_precision()
        except RuntimeError:
            matmul = ""
        try:
            cudnn = torch.backends.cudnn.allow_tf32
        except RuntimeError:
            cudnn = None
        names = [name for name in _names() if _holder(name) is not None]
        return cls(matmul, cudnn, tuple((name, _holder(name).fp32_precision) for name in names))

    def set(self) -> None:
        """Set this process's, with as few of the newer switches as will do: the older ones do not bear them."""
        now = Rounding.of_this_process()
        if self.matmul and self.matmul != now.matmul:
            torch.set_float32_matmul_precision(self.matmul)
        if self.cudnn is not None and self.cudnn != now.cudnn:
            torch.backends.cudnn.allow_tf32 = self.cudnn
        here = dict(Rounding.of_this_process().switches)
        for name, value in self.switches:
            if _in_words(value) != _in_words(here.get(name, value)):
                _holder(name).fp32_precision = value

    def of_device(self, kind: str) -> dict[str, str]:
        """For each operation, ``float32``, ``tf32`` or ``bf16`` on a type of device.

        >>> Rounding.of_this_process().of_device("cpu")
        {'products': 'float32', 'convolutions': 'float32', 'recurrent layers': 'float32'}
        """
        switches = dict(self.switches)
        found = {}
        for (operation, part), backend in zip(OPERATIONS.items(), BACKENDS.get(kind, BACKENDS["cpu"]), strict=True):
            value = switches.get(f"{backend}.{part}", self._formerly(part, kind))
            found[operation] = _in_words(value)
        return found

    def _formerly(self, part: str, kind: str) -> str:
        """What the older switches say of an operation."""
        if part == "matmul":
            return next((now for now, word in LEGACY.items() if word == self.matmul), "float32")
        return "tf32" if kind == "cuda" and self.cudnn else "float32"


def _in_words(value: str) -> str:
    return "float32" if value in FULL else value


def _names() -> list[str]:
    found = (zip(backends, OPERATIONS.values(), strict=True) for backends in BACKENDS.values())
    return [f"{backend}.{part}" for pairs in found for backend, part in pairs]


def _holder(name: str) -> Any:
    """What has the switch of a backend's operation; None if this torch has none."""
    backend, part = name.split(".")
    found = getattr(getattr(torch.backends, backend), part, None)
    return found if hasattr(found, "fp32_precision") else None
