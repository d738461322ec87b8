"""``lotto export``: a trained ticket as a program, and how small and quick the levels of a result are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tyro.conf import Positional

from lotto.cli.common import check_writable, load_with_progress, whole_numbers
from lotto.cli.screen import console, say
from lotto.cli.stopping import stopping
from lotto.core.errors import UsageError
from lotto.core.result_files import result_folder, trained_folder

NEEDS_LOTTO = (
    "The sparse program needs lotto where it runs: `import lotto.inference`, then {}. "
    "With numba kernels compute it, without it torch's dense layers, to the same outputs. Without lotto torch does not "
    "know its operator lotto::sparse_network and refuses the file: write one without --sparse for there."
)


def export(
    result: Positional[Path],
    /,
    *,
    compact: bool = False,
    sparse: bool = False,
    onnx: bool = False,
    torchscript: bool = False,
    table: bool = False,
    levels: str | None = None,
    format: str | None = None,
    store: Path | None = None,
    out: Path | None = None,
) -> None:
    """Write the trained ticket of a result as a program of torch, and measure it.

    The file is for torch.export.load(FILE).module(), and its outputs have been compared with the network's. The table
    has size, test error and time of the dense network (pruned weights are zeros: as quick as before pruning), of the
    compact one, and of the sparse one, in batches of 1 and 64, the first two also in bfloat16; the times are measured
    in turns. With --table no program is written: how small, how good and how quick is each level?

    Args:
        result: a folder that `lotto imp` wrote, or its ticket.safetensors.
        compact: remove units that are cut off; the outputs stay the same.
        sparse: hold the kept weights only, also without units that are cut off. It runs where lotto is installed.
        onnx: write an ONNX graph, which onnxruntime has computed; measure it, too. For the extra lotto-tickets[onnx].
        torchscript: write TorchScript, which torch calls deprecated; measure it, too.
        table: measure all levels instead, into sweep.csv and sweep.svg.
        levels: with --table, which levels: 0,4,8.
        format: with --table, print it as markdown, latex (for the package booktabs) or csv alone, and write nothing.
        store: with --table, where the trained weights are remembered (default: LOTTO_STORE or the user's cache).
        out: the file (default: pruned, compact or sparse beside the ticket); with --table the folder.
    """
    if table:
        _table(result, levels, format, store, out, ["onnx"] * onnx + ["torchscript"] * torchscript)
        return
    for name, given in (("levels", levels), ("format", format), ("store", store)):
        if given is not None:
            raise UsageError(f"--{name} is for the table of levels: add --table, or leave it out.")
    if sum((onnx, torchscript)) > 1 or (onnx and sparse):
        raise UsageError(
            "--onnx and --torchscript are two files: write one at a time."
            if torchscript
            else "ONNX has no operator that skips pruned weights: write the graph of --compact."
        )
    folder = trained_folder(result)
    path = out or folder / _name(compact, sparse, onnx, torchscript)
    check_writable(path.parent)
    from lotto.core.files import write_bytes
    from lotto.core.text import size_words
    from lotto.inference.export import load_trained
    from lotto.inference.onnx_graphs import OnnxNetwork, onnx_of
    from lotto.inference.pattern_runtimes import who_uses
    from lotto.inference.programs import SIZES, examples_of, program_of
    from lotto.inference.torchscript import loaded, torchscript_of
    from lotto.inference.variants import COMPACT, DENSE, SPARSE, forms, variants
    from lotto.pruning.masks import ones
    from lotto.report.inference import export_table, what_pays

    stopping.unwind()
    recipe, module, about = load_trained(result, load_with_progress)
    weights = module.state_dict()
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
        content = programs[kind]
        if onnx or torchscript:
            status.update(f"Exporting the {kind} network for another runtime")
            inputs, extra = examples_of(recipe, max(SIZES)), "onnx" if onnx else "torchscript"
            content = (onnx_of if onnx else torchscript_of)(made[kind], inputs, SIZES)
            made[extra] = OnnxNetwork(content, threads=0) if onnx else loaded(content)
            programs[extra] = content
        sizes = {name: len(program) for name, program in programs.items()}
        measured = variants(recipe, made, sizes, status.update)
    write_bytes(path, content)
    console.print(export_table(measured, float(about["density"]), recipe.error_unit))
    say(what_pays(measured))
    say(who_uses({name: weights[name] != 0 for name in ones(recipe)}))
    say(f"Program {path} ({size_words(path.stat().st_size)})")
    if torchscript:
        say("TorchScript is deprecated by torch, which still reads it: torch.jit.load(FILE).")
    if sparse:
        say(NEEDS_LOTTO.format("torch.jit.load(FILE)" if torchscript else "torch.export.load(FILE).module()"))


def _name(compact: bool, sparse: bool, onnx: bool, torchscript: bool) -> str:
    kind = "sparse" if sparse else "compact" if compact else "pruned"
    return f"{kind}.{'onnx' if onnx else 'ts' if torchscript else 'pt2'}"


def _table(
    result: Path, levels: str | None, format: str | None, store: Path | None, out: Path | None, more: list[str]
) -> None:
    """Measure the levels of a result."""
    folder = result_folder(result)
    chosen = None if levels is None else whole_numbers(levels, "--levels")
    if format is None:
        check_writable(out or folder)
    from lotto.inference.all_forms import USUAL
    from lotto.inference.density_sweep import sweep
    from lotto.inference.trained_levels import recipe_of
    from lotto.lottery.saved import load
    from lotto.report.sweeps import as_text, check_form, save, show

    if format is not None:
        check_form(format)
    stopping.unwind()
    found = load(folder)
    recipe = recipe_of(found)
    if format is None and isinstance(recipe.data, str):  # its bar would stand in the table
        load_with_progress(recipe.data)
    measured = sweep(
        found, recipe, levels=chosen, forms=[*USUAL, *more], store=store, progress=None if _seen() else _told()
    )
    if format is not None:
        sys.stdout.write(as_text(measured, format))
        return
    table, figure = save(measured, out or folder)
    show(measured, console)
    say(f"Table   {table}")
    say(f"Figure  {figure}")


def _seen() -> bool:
    """Whether somebody sees the library's bars, which are drawn on a terminal."""
    return sys.stderr.isatty()


def _told() -> Callable[[object], None]:
    """Without a terminal a line for each stage, beside the output."""
    from lotto.cli.screen import errors
    from lotto.execution.events import StageAdvanced

    stages: list[str] = []

    def line(event: object) -> None:
        if isinstance(event, StageAdvanced) and event.stage not in stages:
            stages.append(event.stage)
            say(f"{event.stage} …", to=errors)

    return line
