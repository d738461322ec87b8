"""What a network's state must be, so that it can be kept, masked and put in between others: named, dense tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lotto.core.errors import UsageError


def check_state(module: nn.Module) -> None:
    """Raise ``UsageError`` for lazy layers, sparse tensors and extra state that is no tensor."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(tensor):
            raise UsageError(
                f"{name!r} is lazy: its shape is not known before data has passed. Give the layer its sizes, or pass a "
                "batch through the network where it is built: def model(): net = MyNet(); net(torch.zeros(1, 20)); "
                "return net."
            )
        if tensor.layout != torch.strided:
            raise UsageError(
                f"{name!r} has the layout {tensor.layout}; weights are dense here, and zeros are kept by masks: "
                "use tensor.to_dense()."
            )
    for layer, part in module.named_modules():
        if type(part).get_extra_state is not nn.Module.get_extra_state and not isinstance(
            part.get_extra_state(), Tensor
        ):
            raise UsageError(
                f"{type(part).__name__} ({layer or 'the model itself'}) has extra state that is no tensor "
                "(get_extra_state), which runs and tickets cannot keep. Make it a buffer (register_buffer), return a "
                "tensor, or leave both out in a subclass: get_extra_state, set_extra_state = "
                "nn.Module.get_extra_state, nn.Module.set_extra_state."
            )
