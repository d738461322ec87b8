"""
Find a ticket
=============

LeNet-300-100 on MNIST, the network of the first paper. Five replicates of four short epochs are trained, pruned
step by step and rewound to the start; a level matches when its paired gap is shown to be below the tolerance of
0.2 points.
"""

import lotto

recipe = lotto.recipes.get("lenet-mnist-fast")
result = lotto.imp(recipe, densities=[0.5, 0.25, 0.1, 0.05], rewind_to="0it", control_levels=[3, 4], jobs=1)
result

# %%
# The plot has the error of each level with the bounds of its gap, and both controls: the same mask on a new
# initialisation, and a random mask with the same number of weights in each layer.

result.plot()

# %%
# A ticket is weights and a mask. It loads without lotto, as one safetensors file, and trains like any start.

ticket = result.chosen_ticket()
ticket.save("ticket.safetensors")
print(f"{ticket.density:.1%} of the weights, error {lotto.train(recipe, start=ticket, order_seed=7).test_error:.2f} %")
