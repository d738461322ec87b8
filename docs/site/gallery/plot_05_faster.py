"""
Is it faster?
=============

A pruned network multiplies its zeros, unless something is done about it. `lotto.sweep` measures what can be
done: the size on disk, the error, and the time of a batch as the dense network, as a smaller dense one, and
with the kept weights alone.
"""

import lotto

recipe = lotto.recipes.get("resnet20-mnist1d").replace(steps="300it", schedule__milestones=["150it", "225it"])
result = lotto.imp(recipe, densities=[0.2, 0.05], rewind_to="30it", replicates=1, controls=(), jobs=1)
measured = lotto.sweep(result, batches=[1, 64])
measured

# %%
print(measured.summary)

# %%
measured.plot()
