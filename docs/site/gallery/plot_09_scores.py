"""
Methods compared
================

What is pruned is a score, an allocation over layers and a pattern; all of them stand on the same footing: the
same replicates, gaps and verdicts. Here magnitude, magnitude against the start, a score of one's own, and a
random order.
"""

import matplotlib.pyplot as plt

import lotto


def sensitivity(context):  # |w · gradient|: what a first-order model says a weight is worth
    gradients = context.gradients(examples=500)
    return {name: (w * gradients[name]).abs() for name, w in context.weights.items()}


recipe = lotto.recipes.get("mlp-mnist1d")
figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
for score in ("magnitude", "magnitude-increase", sensitivity, "random"):
    result = lotto.imp(
        recipe, densities=[0.5, 0.2, 0.05], score=score, rewind_to="20it", replicates=3, controls=(), jobs=1
    )
    table = result.table()
    axes.errorbar(100 * table["density"], table["error"], table["error_std"], label=getattr(score, "__name__", score))
axes.set(xlabel="left (%)", ylabel="test error (%)", xscale="log", title="Four scores, three replicates each")
axes.invert_xaxis()
axes.legend()
plt.show()

# %%
# The last one, random order, at its sparsest level against its dense network. All studies of methods:
# :doc:`/results/README`.

print(result.compare(0, 3))
