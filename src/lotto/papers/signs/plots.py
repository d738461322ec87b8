"""Plots of the experiments on signs and on the agreement of masks."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from lotto.experiments.measures import DENSE, ERROR, REINIT
from lotto.papers.signs import measures as m
from lotto.report import plots

STYLES = {
    m.TICKET: ("C0", "-"), m.KEPT_SHUFFLED: ("C2", "-"), m.KEPT_CONSTANT: ("C4", "-"), m.DRAWN_KEPT: ("C1", "--"),
    m.DRAWN_SHUFFLED: ("C2", "--"), m.DRAWN_CONSTANT: ("C4", "--"), REINIT: (plots.COLOURS["reinit"], ":"),
}  # fmt: skip
"""Colours tell the magnitudes, dashes the signs."""
COMPARED = (m.OTHER_INITIALISATION, m.OTHER_ORDER, m.OTHER_REWINDING, m.ONE_CUT)


def arms(means: pd.DataFrame, tolerance: float) -> Figure:
    """Error of each arm against density, of the first rewind step; dashed where signs are drawn."""
    found = ERROR.of(means)
    found = found[found["rewind_step"] == found["rewind_step"].max()]
    dense = found[found["kind"] == DENSE]["mean"].mean()
    titles = {REINIT: "new initialisation"}
    styles = {kind: (*style, titles.get(kind, kind)) for kind, style in STYLES.items()}
    return plots.errors_by_kind(found, dense, styles)


def flips(means: pd.DataFrame, tolerance: float) -> Figure:
    """Fractions of signs that change, against density: a panel for each measure, a line for each way of rewinding."""
    shown = (m.FROM_REWIND_POINT, m.IN_LEVEL, m.SINCE_LEVEL)
    made, axes = plots.panels(len(shown), 3.2)
    for axis, measure in zip(axes, shown, strict=True):
        _by_kind_and_step(axis, measure.of(means))
        axis.set_title(measure.name, fontsize=10)
    axes[0].legend(frameon=False, fontsize=8)
    return made


def perturbation(means: pd.DataFrame, tolerance: float) -> Figure:
    """Errors from the perturbed level on: a panel for each way of rewinding, a line for each fraction."""
    found = m.PERTURBED_ERROR.of(means)
    found = found[found["rewind_step"] == found["rewind_step"].max()]
    made, axes = plots.panels(len(m.REWINDINGS), 3.2)
    fractions = sorted(found["x"].unique())
    for axis, kind in zip(axes, m.REWINDINGS, strict=True):
        for number, fraction in enumerate(fractions):
            part = found[(found["kind"] == kind) & (found["x"] == fraction)]
            plots.line(axis, part, "density", plots.ramp(number, len(fractions)), f"{100 * fraction:g} % of signs")
        plots.density_axis(axis, list(found["density"].unique()))
        plots.error_axis(axis, found["mean"])
        axis.set_title(f"{kind}: test error, points", fontsize=10)
    limits = [end for axis in axes for end in axis.get_ylim()]
    for axis in axes:  # side by side to be compared
        axis.set_ylim(min(limits), max(limits))
    axes[0].legend(frameon=False, fontsize=8)
    return made


def overlap(means: pd.DataFrame, tolerance: float) -> Figure:
    """Agreement above chance against density, whole masks and, at the last level, layer by layer."""
    made, (whole, layers) = plots.panels(2, 3.4)
    found = means[means["rewind_step"] == means["rewind_step"].max()]
    by_layer = m.LAYER_AGREEMENT.of(found)
    by_layer = by_layer[by_layer["level"] == by_layer["level"].max()]
    for number, kind in enumerate(COMPARED):
        part = m.AGREEMENT.of(found)
        plots.line(whole, part[part["kind"] == kind], "density", f"C{number}", kind)
        plots.line(layers, by_layer[by_layer["kind"] == kind], "x", f"C{number}", kind)
    plots.density_axis(whole, list(m.AGREEMENT.of(found)["density"].unique()))
    layers.set_xlabel("layer")
    whole.set_title(f"agreement above chance, k = {found['rewind_step'].max()}", fontsize=10)
    layers.set_title("of each layer, at the last level", fontsize=10)
    whole.legend(frameon=False, fontsize=8)
    return made


def _by_kind_and_step(axis: plots.Axes, found: pd.DataFrame) -> None:
    """A colour for each kind, a dash for each rewind step."""
    steps = sorted(found["rewind_step"].unique())
    for number, kind in enumerate(m.REWINDINGS):
        for place, step in enumerate(steps):
            part = found[(found["kind"] == kind) & (found["rewind_step"] == step)]
            label = f"{kind}, k = {step}" if len(steps) > 1 else str(kind)
            plots.line(axis, part, "density", f"C{number}", label, ls=plots.DASHES[place % len(plots.DASHES)])
    plots.density_axis(axis, list(found["density"].unique()))
