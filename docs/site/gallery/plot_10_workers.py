"""
Workers, a queue, a cluster
===========================

An experiment does not know where it runs. Here two worker processes on this machine, through the same call that
takes Ray or a queue on a cluster.
"""

import lotto

recipe = lotto.recipes.get("mlp-mnist1d")
result = lotto.imp(recipe, densities=[0.3, 0.1], replicates=4, controls=(), jobs=2)
print(result.table()[["density", "error", "gap", "verdict"]])

# %%
# Nothing is trained twice: whoever asks the same store again is answered from it.

again = lotto.imp(recipe, densities=[0.3, 0.1], replicates=4, controls=(), jobs=1)
print(again.table()["error"].equals(result.table()["error"]))

# %%
# ``backend="ray"`` and ``backend="queue"`` do the same on many machines: :doc:`/docs/cluster`.
