"""What is measured on a card, by name and in this order: the first answers matter most, should the time run out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from lotto.benchmarks.gpu.bits import same_bits
from lotto.benchmarks.gpu.clock import Paced, paced
from lotto.benchmarks.gpu.networks import NETWORKS, PRECISIONS, Setup, Sizes, products_in
from lotto.benchmarks.gpu.side_by_side import side_by_side
from lotto.benchmarks.gpu.tight import tight_steps_on
from lotto.benchmarks.gpu.uploads import uploads
from lotto.benchmarks.harness import Benchmark, Row, measure
from lotto.training.network import flushed_denormals, is_ours

Makers = Mapping[str, Callable[[], Callable[[int], None]]]

LOTTO, TIGHT = "lotto", "tight loop"
COMPILED, GRAPHS, BOTH = ", compiled", ", CUDA graphs", ", compiled with CUDA graphs"
STACKS = (
    ("resnet-20", "tf32", 1), ("lenet", "tf32", 1), ("resnet-18", "tf32", 4), ("resnet-20", "bfloat16", 8),
)  # fmt: skip
"""Which networks are stacked, in which precision, and from which width on."""


@dataclass(frozen=True)
class Case:
    """Something that is measured and written down at once.

    Attributes:
        name: by which it is found again.
        group: which table it is in.
        measure: gives its rows.
    """

    name: str
    group: str
    measure: Callable[[], list[Row]]


def cases_on(device: str, sizes: Sizes) -> list[Case]:
    """Everything that is measured.

    Args:
        device: ``cuda``, ``cuda:1``, ``cpu``.
        sizes: how much.

    >>> from lotto.benchmarks.gpu.networks import TINY
    >>> [case.name for case in cases_on("cpu", TINY)][:2]
    ['loop lenet float32', 'loop lenet tf32']
    """
    cases: list[Case] = []

    def add(group: str, about: str, measured: Callable[[], list[Row]]) -> None:
        cases.append(Case(f"{group} {about}", group, measured))

    def setup(network: str, precision: str, compiled: bool = False) -> Setup:
        return Setup(network, precision, device, sizes, compiled)

    for network in NETWORKS:
        for precision in PRECISIONS:
            add("loop", f"{network} {precision}", partial(loop, setup(network, precision)))
    for network, precision, least in STACKS:
        for width in sizes.widths:
            if width >= least or width == max(sizes.widths):
                about = f"{network} {precision} {width}"
                add("stacked", about, partial(stacked, setup(network, precision), width))
    for network in ("lenet", "resnet-20"):
        add("processes", f"{network} tf32", partial(side_by_side, setup(network, "tf32")))
    for network in NETWORKS:
        for deterministic in (False, True):
            setups = [setup(network, precision) for precision in PRECISIONS]
            about = f"{network} {'deterministic' if deterministic else 'usual'}"
            add("bits", about, partial(same_bits, setups, deterministic))
    for network in NETWORKS:
        add("compiled", f"{network} bfloat16", partial(compiled, setup(network, "bfloat16", True)))
    add("uploads", "images", partial(uploads, device, sizes))
    return cases


def loop(setup: Setup) -> list[Row]:
    """Steps of lotto against those of a tight loop."""
    return compare(setup, {LOTTO: setup.steps, TIGHT: partial(tight_steps_on, setup)}, [(LOTTO, TIGHT)])


def stacked(setup: Setup, width: int) -> list[Row]:
    """Steps of several networks in a stack against one alone, per network."""
    together = f"{width} stacked"
    makers: Makers = {together: partial(setup.steps, width), "alone": setup.steps}
    return compare(setup, makers, [(together, "alone")], {together: width})


def compiled(setup: Setup) -> list[Row]:
    """Steps by `torch.compile`, and as CUDA graphs, against those without; of lotto's what autograd trains."""
    tight = partial(tight_steps_on, setup)
    makers: Makers = {TIGHT: tight, TIGHT + COMPILED: partial(tight, "default")}
    pairs = [(TIGHT + COMPILED, TIGHT)]
    if setup.device != "cpu":
        makers = {**makers, TIGHT + BOTH: partial(tight, "reduce-overhead")}
        pairs.append((TIGHT + BOTH, TIGHT))
    if setup.network != "lenet" or setup.device != "cpu":  # which has kernels of ours there
        plain = replace(setup, compiled=False)
        ours: Makers = {LOTTO: plain.steps, LOTTO + COMPILED: setup.steps}
        if setup.device != "cpu" and is_ours(plain.recipe):
            ours = {**ours, LOTTO + GRAPHS: replace(plain, graphs=True).steps}
        makers, pairs = {**ours, **makers}, [*((name, LOTTO) for name in ours if name != LOTTO), *pairs]
    return compare(setup, makers, pairs)


def compare(
    setup: Setup,
    makers: Makers,
    pairs: Sequence[tuple[str, str]],
    widths: Mapping[str, int] | None = None,
) -> list[Row]:
    """Let contenders take turns; a row for each pair, with seconds per step and network.

    Args:
        setup: what is trained.
        makers: make each contender.
        pairs: which are compared.
        widths: networks that a contender trains at once, where more than one.
    """
    sizes, epoch = setup.sizes, setup.recipe.per_epoch
    with products_in(setup.precision), flushed_denormals():
        made = {name: paced(maker, setup.device, sizes.turn_seconds, epoch) for name, maker in makers.items()}
        each = {name: one.count * (widths or {}).get(name, 1) for name, one in made.items()}
        contenders = {name: one.run for name, one in made.items()}
        benchmark = Benchmark(setup.network, contenders, [(a, b, "") for a, b in pairs], replicates=each)
        found = measure(setup.network, benchmark, sizes.repetitions)
    return [about(setup, row) | _beside(made, row) for row in found]


def about(setup: Setup, row: Row) -> Row:
    """What was trained, beside times."""
    kept = {k: v for k, v in row.items() if k not in ("benchmark", "title", "goal")}
    return {"network": setup.network, "precision": setup.precision, "epoch_steps": setup.recipe.per_epoch, **kept}


def _beside(made: Mapping[str, Paced], row: Row) -> Row:
    """Steps of a turn, memory and the time to the first step, of both contenders."""
    one, other = made[row["what"]], made[row["against"]]
    return {
        "turn_steps": one.count, "turn_steps_against": other.count,
        "mebibytes": one.mebibytes, "mebibytes_against": other.mebibytes,
        "first_seconds": one.first_seconds, "first_seconds_against": other.first_seconds,
    }  # fmt: skip
