"""``lotto data``: data sets and pretrained weights in the cache."""

from __future__ import annotations

from typing import Literal

from tyro.conf import Positional

from lotto.cli.common import load_with_progress
from lotto.cli.screen import say
from lotto.cli.stopping import stopping
from lotto.core.errors import UsageError


def data(
    action: Positional[Literal["get", "list"]],
    name: Positional[str] = "",
    /,
) -> None:
    """Download a data set or pretrained weights into the cache, or list what there is.

    Args:
        action: get or list.
        name: the data set or the weights, for get.
    """
    from lotto.data import IMAGENET, NAMES, NUMBERS
    from lotto.data.sources import download
    from lotto.data.sources.catalog import PUBLISHED, WEIGHTS

    stopping.unwind()
    if action == "get":
        if not name:
            raise UsageError(f"Name a data set: lotto data get NAME. Choices: {', '.join((*NAMES, *WEIGHTS))}.")
        if name in WEIGHTS:
            found = download.get(WEIGHTS[name], progress=lambda what, *_: say(f"{what} ..."))
            say(f"{name}: {sum(w.numel() for w in found.values()):,} pretrained weights in {len(found)} tensors.")
            return
        loaded = load_with_progress(name)
        say(
            f"{name}: {loaded.size()} training and {loaded.size('test')} test examples of shape {loaded.shape}, "
            + ("numbers to tell." if name in NUMBERS else f"{loaded.classes} classes.")
        )
        return
    for known in (*NAMES, *WEIGHTS):
        path = download.cache_folder() / f"{known}.safetensors"
        state = (
            ("in the cache" if path.exists() else "not in the cache") if known in {*PUBLISHED, *WEIGHTS} else "computed"
        )
        if known in IMAGENET:
            state = f"your own folder, {download.cache_folder() / 'imagenet'}"
        say(f"{known:15} {state}")
