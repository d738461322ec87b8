"""``lotto export``: a trained ticket as a program of torch."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from lotto.cli.common import load_with_progress
from lotto.cli.screen import console, say
from lotto.cli.stopping import stopping


def export(
    result: Positional[Path],
    /,
    *,
    compact: bool = False,
    out: Path | None = None,
) -> None:
    """Write the trained ticket of a result as a program that runs with torch alone, and measure it.

    The file is for torch.export.load(FILE).module(). Compared on the test set and in turns against each other: the
    pruned network, the compact one, the compact one with its sparse linear layers as compressed rows, and a
    convolutional network of lotto's by kernels of its nonzero weights: that one needs lotto, and no file is written.

    Args:
        result: a folder that `lotto imp` wrote, or its ticket.safetensors.
        compact: remove units that are cut off; the outputs stay the same.
        out: the file (default: pruned.pt2 or compact.pt2 beside the ticket).
    """
    from lotto.inference import export as exporting
    from lotto.report.table import export_table

    stopping.unwind()
    recipe, module, about = exporting.load_trained(result, load_with_progress)
    folder = result if result.is_dir() else result.parent
    kind = "compact" if compact else "pruned"
    made, measured = exporting.variants(recipe, module)
    path = exporting.save_program(made[kind], recipe, out or folder / f"{kind}.pt2")
    console.print(export_table(measured, float(about["density"]), recipe.error_unit))
    say(f"Program {path} ({path.stat().st_size / 1e6:.3g} MB)")
