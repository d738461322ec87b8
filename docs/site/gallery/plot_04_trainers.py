"""
Lightning and Hugging Face
==========================

A callback makes their trainers train a sparse network. (Run where both packages are installed; else shown
only.)
"""

import lightning as L
import torch

import lotto
from lotto.integrations.lightning import SparseCallback


class Module(L.LightningModule):  # yours, as it is
    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, x):
        return torch.nn.functional.mse_loss(self.net(x), x[:, :2] * x[:, 2:4])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 0.01)


def network():
    return torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))


x = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def fit(model, *, start_step, seed):
    order = torch.Generator().manual_seed(seed)
    batches = torch.utils.data.DataLoader(x[:800], batch_size=100, shuffle=True, generator=order)
    trainer = L.Trainer(max_steps=60, accelerator="cpu", callbacks=[SparseCallback(start_step=start_step)], **quiet)
    trainer.fit(Module(model), batches)
    model.eval()
    return {"error": torch.nn.functional.mse_loss(model(x[800:]), x[800:, :2] * x[800:, 2:4]).item()}


result = lotto.imp(lotto.Trainable(network, fit), densities=[0.5, 0.25], rewind_to="10it", replicates=2, jobs=1)
print(result.table()[["density", "error", "verdict"]])

# %%
# The `Trainer` of transformers takes `lotto.integrations.huggingface.SparseCallback` in the same way.
