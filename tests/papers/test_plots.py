import pandas as pd

from lotto.papers.stabilizing import plots


def rows(steps, kinds, errors):
    found = [
        {"rewind_step": k, "kind": kind, "level": level, "density": 0.5**level, "measure": "error", "unit": "points",
         "mean": error, "std": 0.1}
        for k in steps
        for kind in kinds
        for level, error in enumerate(errors)
    ]  # fmt: skip
    return pd.DataFrame(found)


def test_rewind_steps_have_a_colour_and_kinds_a_dash_each():
    axis = plots.against_density(rows((0, 100, 500), ("imp", "random"), (1.0, 1.1, 30.0)), 0.2).axes[0]
    lines = [bars.lines[0] for bars in axis.containers]
    assert len({line.get_color() for line in lines}) == 3
    assert {line.get_linestyle() for line in lines} == {"-", "--"}
    assert axis.get_yscale() == "log"
    grey = [line.get_ydata()[0] for line in axis.lines if line.get_label() in ("dense", "dense + tolerance")]
    assert grey == [1.0, 1.2]


def test_errors_of_one_size_have_a_plain_axis():
    axis = plots.against_density(rows((100,), ("imp", "random"), (1.0, 1.1, 3.0)), 0.2).axes[0]
    assert axis.get_yscale() == "linear"
    assert len({bars.lines[0].get_color() for bars in axis.containers}) == 2
    zero = plots.against_density(rows((0,), ("imp",), (0.0, 1.0, 3.0)), 0.2).axes[0]
    assert zero.get_yscale() == "linear"
