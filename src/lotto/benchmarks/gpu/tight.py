"""What lotto is compared with on a card: a loop written by hand, everything on the device, nothing waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lotto.benchmarks.baselines import arrays_of
from lotto.benchmarks.gpu.networks import Setup
from lotto.models.norm_relu import by_operators

PADDING = 4


def tight_steps_on(setup: Setup, mode: str | None = None) -> Callable[[int], None]:
    """What takes so many steps of the tightest loop with the same network, batch, mask, optimizer and precision.

    Floats are made beforehand; crops and flips are drawn and made on the device.

    Args:
        setup: what is trained.
        mode: that of `torch.compile`, ``default``; ``reduce-overhead`` has CUDA graphs; None = not compiled.
    """
    recipe, device = setup.recipe, torch.device(setup.device)
    data, (job,) = arrays_of(recipe).to(device), setup.jobs()
    x, y = data.normalise(data.x["train"]), data.y["train"]
    layout = torch.channels_last if recipe.uses_channels_last else torch.contiguous_format
    model = recipe.build()
    model.load_state_dict(recipe.initial(0))
    model = model.to(device, memory_format=layout)  # type: ignore[call-overload]
    parameters = dict(model.named_parameters())
    pairs = [(parameters[n], m.to(device, torch.float32)) for n, m in (job.mask or {}).items()]
    given: Any = recipe.optimizer
    momentum, decay = getattr(given, "momentum", 0.0), given.weight_decay
    optimizer = torch.optim.SGD(model.parameters(), given.lr, momentum=momentum, weight_decay=decay, fused=True)
    images = x.dim() == 4 and recipe.augment is not None
    run = model
    if mode is not None:
        by_operators(model)
        run = cast(nn.Module, torch.compile(model, mode=mode))
    half = recipe.precision == "bfloat16"

    def steps(count: int) -> None:
        order = torch.randperm(len(x), device=device)
        for step in range(count):
            first = step * recipe.batch_size % (len(x) - recipe.batch_size + 1)
            index = order[first : first + recipe.batch_size]
            inputs = _changed(x[index]) if images else x[index]
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                outputs = run(inputs.contiguous(memory_format=layout) if images else inputs)
            loss = F.cross_entropy(outputs.float(), y[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch._foreach_mul_([p.grad for p, _ in pairs if p.grad is not None], [m for _, m in pairs])
            optimizer.step()

    return steps


def _changed(x: Tensor) -> Tensor:
    """Random crops of padded images, some of them flipped, by one index."""
    count, _, height, width = x.shape
    top, left = torch.randint(0, 2 * PADDING + 1, (2, count, 1), device=x.device)
    rows, columns = torch.arange(height, device=x.device) + top, torch.arange(width, device=x.device) + left
    flipped = torch.rand(count, 1, device=x.device) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    padded = F.pad(x, [PADDING] * 4)
    which = torch.arange(count, device=x.device)[:, None, None]
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
