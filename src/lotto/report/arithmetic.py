"""What computed the trainings of a result, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable

LAYERS = re.compile(r"(\d+) of (\d+) layers sparse")


def trained_by(kinds: Iterable[str]) -> str:
    """The kinds of arithmetic, each once, with the fewest and the most layers that were sparse; empty if none is known.

    Args:
        kinds: `Run.arithmetic` of the runs.

    >>> trained_by(["convolutions, 0 of 21 layers sparse", "convolutions, 19 of 21 layers sparse", "autograd"])
    'Trained by convolutions, 0 to 19 of 21 layers sparse; autograd.'
    """
    sparse: dict[str, list[int]] = {}
    for kind in kinds:
        found = LAYERS.search(kind)
        name = kind if found is None else LAYERS.sub(rf"{{}} of {found[2]} layers sparse", kind)
        sparse.setdefault(name, []).extend([] if found is None else [int(found[1])])
    said = []
    for name, counts in sparse.items():
        few, many = (min(counts), max(counts)) if counts else (0, 0)
        said.append(name.replace("{}", f"{few} to {many}" if few < many else str(few)))
    return f"Trained by {'; '.join(filter(None, said))}." if any(said) else ""
