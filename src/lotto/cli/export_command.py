"""``lotto export``: a trained ticket as a program of torch."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from lotto.cli.common import load_with_progress
from lotto.cli.screen import console, say
from lotto.cli.stopping import stopping
from lotto.core.errors import UsageError
from lotto.core.result_files import trained_folder

NEEDS_LOTTO = (
    "The sparse program needs lotto where it runs: `import lotto.inference`, then torch.export.load(FILE).module(). "
    "With numba kernels compute it, without it torch's dense layers, to the same outputs. Without lotto torch does not "
    "know its operator lotto::sparse_network and refuses the file: write one without --sparse for there."
)


def export(
    result: Positional[Path],
    /,
    *,
    compact: bool = False,
    sparse: bool = False,
    out: Path | None = None,
) -> None:
    """Write the trained ticket of a result as a program of torch, and measure it.

    The file is for torch.export.load(FILE).module(), and its outputs have been compared with the network's. The table
    has size, test error and time of the dense network (pruned weights are zeros: as quick as before pruning), of the
    compact one, and of the sparse one, in batches of 1 and 64, the first two also in bfloat16; the times are measured
    in turns.

    Args:
        result: a folder that `lotto imp` wrote, or its ticket.safetensors.
        compact: remove units that are cut off; the outputs stay the same.
        sparse: hold the kept weights only, also without units that are cut off. It runs where lotto is installed.
        out: the file (default: pruned.pt2, compact.pt2 or sparse.pt2 beside the ticket).
    """
    folder = trained_folder(result)
    from lotto.core.files import write_bytes
    from lotto.inference.export import load_trained
    from lotto.inference.programs import program_of
    from lotto.inference.variants import COMPACT, DENSE, SPARSE, forms, variants
    from lotto.report.inference import export_table, what_pays

    stopping.unwind()
    recipe, module, about = load_trained(result, load_with_progress)
    kind = SPARSE if sparse else COMPACT if compact else DENSE
    with console.status("Making the networks smaller") as status:
        made = forms(recipe, module)
        if kind not in made:
            raise UsageError(
                f"There is no {kind} form of this network: it reads several tensors, or too many weights are left. "
                f"Write it without --{kind}."
            )
        programs = {}
        for name, network in made.items():
            status.update(f"Exporting the {name} network")
            programs[name] = program_of(network, recipe)
        sizes = {name: len(program) for name, program in programs.items()}
        measured = variants(recipe, made, sizes, status.update)
    path = out or folder / f"{'pruned' if kind == DENSE else kind}.pt2"
    write_bytes(path, programs[kind])
    console.print(export_table(measured, float(about["density"]), recipe.error_unit))
    say(what_pays(measured))
    say(f"Program {path} ({path.stat().st_size / 1e6:.3g} MB)")
    if sparse:
        say(NEEDS_LOTTO)
