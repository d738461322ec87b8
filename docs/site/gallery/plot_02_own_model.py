"""
Your own model and data
=======================

A recipe is what is trained and how, as frozen data: any `torch.nn.Module`, arrays or a dataset or a loader, an
optimizer, a schedule. Here a small convolutional network on the 8 × 8 digits of scikit-learn.
"""

import torch
from sklearn.datasets import load_digits

import lotto


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.BatchNorm2d(16), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(16, 32, 3, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU(),
        )  # fmt: skip
        self.classify = torch.nn.Linear(32, 10)

    def forward(self, x):
        return self.classify(self.features(x).mean((2, 3)))


images, labels = load_digits(return_X_y=True)
x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
y = torch.tensor(labels)
recipe = lotto.Recipe(
    model=Net,
    data=lotto.data.Arrays(x[:1200], y[:1200], x[1200:], y[1200:]),
    optimizer=lotto.SGD(0.1, momentum=0.9, weight_decay=1e-4),
    schedule=lotto.Cosine(),
    batch_size=64,
    steps="15ep",
    tolerance=1.0,
)

# %%
# What would be trained, and what can be pruned: every convolution and linear layer, unless you exclude some.

mask = lotto.pruning.masks.ones(recipe)
print(mask)

# %%
# The last layer stays as it is; all others are compared with one another.

recipe = recipe.replace(pruning__exclude=("classify",))
result = lotto.imp(recipe, densities=[0.5, 0.2, 0.1, 0.05], rewind_to="1ep", replicates=3, controls=["random"], jobs=1)
result.table()[["density", "parameter_fraction", "error", "gap", "gap_high", "verdict", "random"]].round(3)

# %%
# Where the weights are left, layer by layer:

result.plot("layers")
