"""
Curvature, and how much can go at once
======================================

The Hessian's spectrum over the weights that are left, and the fraction that the theory of *Unmasking the
Lottery Ticket Hypothesis* allows to be pruned at once.
"""

import matplotlib.pyplot as plt

import lotto
from lotto.landscape import curvature

recipe = lotto.recipes.get("mlp-mnist1d").replace(model="mlp-32-16")
run = lotto.train(recipe)
mask = lotto.pruning.prune(run.weights, lotto.pruning.masks.ones(recipe), density=0.5)
sparse = lotto.train(recipe, mask=mask)

print("largest eigenvalues:", curvature.top(recipe, sparse.weights, mask, k=5).values)

# %%
spectrum = curvature.spectrum(recipe, sparse.weights, mask, steps=64)
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
axes.stem(spectrum.nodes, spectrum.masses, basefmt=" ")
axes.set(xlabel="eigenvalue", ylabel="share of all directions", yscale="log", title="Spectrum of the Hessian")
plt.show()

# %%
# What is pruned lies in directions of its own curvature; magnitude finds flatter ones than chance does.

for score in ("magnitude", "random"):
    cut = lotto.pruning.prune(sparse.weights, mask, 0.3, score)
    print(f"{score}: mean curvature {curvature.pruned_block(recipe, sparse.weights, mask, cut).mean:.4f}")
