"""
The landscape between networks
==============================

The error on the straight line between two trained networks, and on the plane through three of them.
"""

import matplotlib.pyplot as plt

import lotto

recipe = lotto.recipes.get("mlp-mnist1d")
dense = lotto.train(recipe, keep=["20it"])
orders = [lotto.train(recipe, order_seed=seed, start=dense.state(20), from_step=20) for seed in (1, 2)]
path = lotto.landscape.evaluate_path(recipe, orders[0].weights, orders[1].weights, points=15)
print("barrier of two copies that part at iteration 20:", round(path.barrier(), 2), "points")

# %%
# A network of another initialisation is far from both:

other = lotto.train(recipe, init_seed=1)
plane = lotto.landscape.evaluate_plane(recipe, orders[0].weights, orders[1].weights, other.weights, points=13)
figure, axes = plt.subplots(figsize=(6, 4.4), layout="constrained")
drawn = axes.contourf(plane.x, plane.y, plane.error, levels=12, cmap="viridis_r")
for name, (x, y) in zip(("order 1", "order 2", "another initialisation"), plane.corners, strict=True):
    axes.plot(x, y, "o", color="white", markeredgecolor="black")
    axes.annotate(name, (x, y), xytext=(6, 6), textcoords="offset points")
axes.set(
    xlabel="distance of weights", ylabel="distance of weights", title="Test error on the plane through three networks"
)
figure.colorbar(drawn, label="test error (%)")
plt.show()
