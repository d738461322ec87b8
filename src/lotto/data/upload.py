"""Copies to a device that nobody waits for."""

from __future__ import annotations

import torch
from torch import Tensor


def uploaded(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device, on a GPU without waiting for the copy.

    A GPU fetches by itself from pinned memory only; from ordinary memory Python has to wait until it is read. torch
    keeps pinned memory for the next batch, and does not give it out before the copy has ended. What follows on the GPU
    comes after the copy, as in any program of one stream.

    Args:
        tensor: on whichever device it is.
        device: where it is wanted.

    >>> uploaded(torch.ones(2), torch.device("cpu"))
    tensor([1., 1.])
    """
    if device.type != "cuda" or tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return tensor.to(device)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)
