"""
Your own loop
=============

A loop stays as it is. `lotto.Trainable` makes a recipe of a network and of a function that trains it, whatever
it does inside: here two parameter groups, clipping and a schedule of PyTorch's.
"""

import torch

import lotto


class Net(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))


def products(x):
    return x[:, :2] * x[:, 2:4]


def fit(model, *, start_step, seed):
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[2].parameters(), "lr": 0.02}]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - (start_step + step) / 400)
    for _ in range(start_step, 400):
        x = torch.randn(64, 8, generator=order)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), products(x)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    x = torch.randn(4096, 8, generator=torch.Generator().manual_seed(0))
    return {"error": torch.nn.functional.mse_loss(model(x), products(x)).item()}


result = lotto.imp(
    lotto.Trainable(Net, fit, tolerance=0.02), levels=4, rate=0.4, rewind_to="40it", replicates=3, jobs=1
)
result

# %%
# Error, tolerance and gaps are in the unit of what ``fit`` returns, here the mean squared error.

result.plot()

# %%
# Who wants nothing else than a sparse network trained writes a block around the loop: pruned weights and what
# optimizers remember of them are 0 after every step.

model = Net()
mask = lotto.pruning.prune(model.state_dict(), lotto.pruning.masks.ones(model), density=0.2)
with lotto.sparse(model, mask) as block:
    fit(model, start_step=0, seed=0)
print(block.mask, block.steps)
