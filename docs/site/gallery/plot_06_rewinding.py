"""
Rewinding matters
=================

The phenomenon of *Stabilizing the Lottery Ticket Hypothesis*, small enough for this page: a 20-layer network on
MNIST-1D that is unstable at initialisation, pruned to 12 and 6 % of its weights. Two replicates, rewound to the
start and to iteration 100; what decides is five of them (``make demo``, and :doc:`/results/README`).
"""

import lotto

recipe = lotto.recipes.get("resnet20-mnist1d")
results = {
    k: lotto.imp(recipe, densities=[0.35, 0.12, 0.06], rewind_to=k, replicates=2, controls=(), jobs=1)
    for k in ("0it", "100it")
}
for k, result in results.items():
    print("rewound to", k)
    print(result.table()[["density", "error", "gap"]].to_string(index=False))

# %%
# Why: two copies of the dense network that part at the start are trained apart; those that part at iteration
# 100 end in one valley. The barrier between them, in points of test error, with BatchNorm statistics re-
# estimated:

for k in ("0it", "100it"):
    found = lotto.landscape.instability(
        recipe.replace(bn_examples=1000), k, order_seeds=(0, 1), points=9, examples=2000, jobs=1
    )
    print(k, round(found.barrier(batchnorm="recompute").mean, 2))
