"""Drawings of the concepts, made when the site is built: in inks that read on white and on black."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, BLUE, RED, YELLOW = "#808080", "#3d8fd1", "#dd5566", "#c98f1b"
STYLE = {"font.size": 12, "svg.hashsalt": "lotto", "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK,
         "xtick.color": INK, "ytick.color": INK}  # fmt: skip


def levels(axes: Axes) -> None:
    """Training, pruning and rewinding as lines against the iteration, a line a level."""
    k, total = 1.5, 10.0
    for level, colour in enumerate((BLUE, BLUE, BLUE)):
        y = -level
        axes.plot([0 if level == 0 else k, total], [y, y], color=colour, lw=3)
        axes.plot([total], [y], "o", color=colour, ms=9)
        left = (1.0, 0.7, 0.49)[level]
        axes.text(total + 0.4, y, f"level {level}: {left:.0%} of the weights", va="center")
        if level:
            axes.annotate(
                "", (k, y + 0.06), (total, y + 0.94), arrowprops={"arrowstyle": "->", "color": INK, "lw": 1.2}
            )
    axes.text(6.2, -0.32, "prune the smallest,\nrewind the rest to k", ha="left", va="center", fontsize=10)
    axes.plot([k, k], [0.25, -2.25], ls=":", color=INK)
    axes.plot([0], [0], "s", color=INK, ms=8)
    axes.text(0, 0.3, "initial weights", ha="left")
    axes.text(k, -2.5, "rewind step k", ha="center", va="top")
    axes.text(total, -2.5, "end of training", ha="center", va="top")
    axes.set(xlim=(-0.5, 17), ylim=(-3, 0.8))
    axes.axis("off")


def ticket(axes: Axes) -> None:
    """A matrix of weights, a mask, and the ticket that both make."""
    rng = np.random.default_rng(3)
    weights = rng.normal(size=(6, 6))
    mask = np.abs(weights) >= np.sort(np.abs(weights).ravel())[-12]
    for at, (title, values) in enumerate((("weights at k", weights), ("mask", None), ("ticket", weights * mask))):
        for i in range(6):
            for j in range(6):
                kept = True if at == 0 else mask[i, j]
                value = 1.0 if values is None else values[i, j]
                colour = INK if values is None else (BLUE if value > 0 else RED)
                shade = min(1.0, 0.15 + abs(value) / 2)
                box = mpl.patches.Rectangle((8 * at + j, -i), 0.9, 0.9, facecolor=colour if kept else "none",
                                            alpha=shade if kept else 0.5, edgecolor=INK, lw=0.4)  # fmt: skip
                axes.add_patch(box)
        axes.text(8 * at + 3, 1.3, title, ha="center")
    axes.text(6.95, -2.1, "×", ha="center", va="center", fontsize=18)
    axes.text(14.95, -2.1, "=", ha="center", va="center", fontsize=18)
    axes.set(xlim=(-0.5, 22.5), ylim=(-5.5, 2.2), aspect="equal")
    axes.axis("off")


def barrier(axes: Axes) -> None:
    """The error along the straight line between two networks, with and without a barrier."""
    along = np.linspace(0, 1, 200)
    line = 1.5 + 0.3 * along
    hill = line + 4 * np.sin(np.pi * along) ** 4
    axes.plot(along, hill, color=RED, lw=2.5)
    axes.plot(along, line - 0.25 * np.sin(np.pi * along), color=BLUE, lw=2.5)
    axes.plot(along, line, ls=":", color=INK)
    axes.plot([0, 1], [1.5, 1.8], "o", color=INK, ms=8, zorder=3)
    axes.annotate("", (0.5, hill[100]), (0.5, line[100]), arrowprops={"arrowstyle": "<->", "color": INK})
    axes.text(0.52, 3.4, "barrier")
    axes.text(0.8, 4.1, "not connected", color=RED)
    axes.text(0.5, 0.75, "linearly connected", color=BLUE, ha="center")
    axes.set(xlabel="(1 − α) a + α b", ylabel="error", xlim=(-0.05, 1.05), ylim=(0, 6.2), xticks=[0, 1], yticks=[])
    axes.set_xticklabels(["a: α = 0", "b: α = 1"])
    axes.spines[["top", "right"]].set_visible(False)


def subspace(axes: Axes) -> None:
    """An axial subspace, the projection of a solution on it, and what retraining finds there."""
    x, y = np.meshgrid(np.linspace(-0.6, 3.4, 200), np.linspace(-0.9, 2.3, 200))
    error = (x - 2.0) ** 2 / 2.6 + (y - 0.75 - 0.42 * (x - 2.0)) ** 2 * 1.7
    axes.contour(
        x, y, error, levels=[0.12, 0.36, 0.9, 2.0], colors=[BLUE, INK, INK, INK], linewidths=[2.2, 0.8, 0.8, 0.8]
    )
    axes.axhline(0, color=YELLOW, lw=2.5)
    axes.plot([2.0], [0.75], "o", color=BLUE, ms=9)
    axes.text(2.1, 0.86, "solution of a level")
    axes.annotate("", (2.0, 0.04), (2.0, 0.68), arrowprops={"arrowstyle": "->", "color": INK, "lw": 1.6})
    axes.text(2.08, 0.3, "prune: projection", fontsize=10)
    axes.annotate("", (1.12, 0.0), (1.95, 0.0), arrowprops={"arrowstyle": "->", "color": RED, "lw": 2.4})
    axes.text(1.0, -0.34, "retrain", color=RED, fontsize=10)
    axes.text(-0.5, 0.1, "axial subspace: what the mask leaves", color=YELLOW, fontsize=10)
    axes.set(xlabel="a weight that stays", ylabel="a weight that goes", xticks=[], yticks=[], xlim=(-0.6, 4.4))
    axes.spines[["top", "right"]].set_visible(False)


DRAWINGS: dict[str, tuple[Callable[[Axes], None], tuple[float, float]]] = {
    "levels": (levels, (8.4, 2.9)),
    "ticket": (ticket, (8.4, 3.0)),
    "barrier": (barrier, (6.4, 3.4)),
    "subspace": (subspace, (6.8, 3.6)),
}


def draw(folder: Path) -> None:
    """Draw all of them into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (onto, size) in DRAWINGS.items():
        with mpl.rc_context(STYLE):  # type: ignore[arg-type]
            made = Figure(figsize=size, layout="constrained")
            made.patch.set_alpha(0.0)
            axes = made.subplots()
            axes.patch.set_alpha(0.0)
            onto(axes)
            FigureCanvasSVG(made).print_svg(folder / f"{name}.svg", metadata={"Date": None})


def setup(app: object) -> dict[str, bool]:
    """Draw before the pages are read."""
    app.connect("builder-inited", lambda app: draw(Path(app.srcdir) / "docs" / "site" / "made"))  # type: ignore[attr-defined]
    return {"parallel_read_safe": True}
