"""
How claims are decided
======================

A level *matches* when the one-sided 95 % bound of its mean paired gap is below the tolerance. This page shows
why one replicate decides nothing, and how many are needed.
"""

import matplotlib.pyplot as plt
import numpy as np

import lotto

recipe = lotto.recipes.get("mlp-mnist1d")
result = lotto.imp(recipe, densities=[0.5, 0.1], rewind_to="20it", replicates=5, controls=(), jobs=1)
print(result.table()[["density", "gap", "gap_low", "gap_high", "verdict"]])

# %%
# Each replicate has the same initialisation and data order as its dense network, so that its gap is *paired*;
# the spread of gaps is what a verdict has to see through.

errors = np.array([[level.run.test_error for level in replicate] for replicate in result.replicates])
gaps = errors[:, 1:] - errors[:, :1]
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for at, column in enumerate(gaps.T):
    axes.plot(column, [at] * len(column), "o")
axes.axvline(recipe.tolerance, ls=":", color="grey")
axes.set(yticks=[0, 1], yticklabels=["50 % left", "10 % left"], ylim=(-0.6, 1.6))
axes.set(xlabel="gap (points); dotted: tolerance", title="Gaps of five replicates")
plt.show()

# %%
# What two levels of a result differ in, with the part of the spread that the test set alone has:

print(result.compare(0, 2))
