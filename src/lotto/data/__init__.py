"""Data sets: in memory as tensors or read from a folder of images, by name or your own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

from lotto.core.check import checked
from lotto.core.errors import DataError, StorageError, unknown
from lotto.core.moved import renamed_name
from lotto.data.augment import Augment
from lotto.data.batch import Batch
from lotto.data.frames import from_frames
from lotto.data.image_folder import ImageFolder
from lotto.data.in_memory import Arrays
from lotto.data.indexed import Indexed
from lotto.data.loaders import from_loaders
from lotto.data.mapped import MappedArrays
from lotto.data.source import DataSource, Split
from lotto.data.sources import download, synthetic
from lotto.data.sources.catalog import PUBLISHED
from lotto.data.sources.download import Progress
from lotto.data.stream import Stream

PROCEDURAL = {"digits": synthetic.digits}
IMAGENET = {"imagenet": (224, 256), "imagenet-299": (299, 342)}
"""Size and shorter side of ImageNet's images; a folder of the user's, which nothing downloads."""
NAMES = (*PROCEDURAL, *PUBLISHED, *IMAGENET)
NUMBERS = frozenset(name for name, published in PUBLISHED.items() if not published.classes)
"""Those whose targets are numbers, not classes."""

__all__ = [
    "NAMES",
    "Arrays",
    "Augment",
    "Batch",
    "DataSource",
    "ImageFolder",
    "Indexed",
    "MappedArrays",
    "Split",
    "Stream",
    "from_frames",
    "from_loaders",
    "load",
]


@checked
def load(name: str, progress: Progress | None = None) -> Arrays | ImageFolder:
    """Load a data set by name, downloading it once if it is not in the cache.

    Raises:
        UsageError: if the name is unknown; lists the choices.
        DataError: if no source of the set works.

    >>> load("mnist1d").shape
    (40,)
    """
    if name not in NAMES:
        raise unknown("data set", name, NAMES)
    if progress is not None and name in PUBLISHED:
        _published(name, progress)
    return _load(name, str(download.cache_folder()))


__getattr__ = partial(renamed_name, __name__)  # names of the first edition


@lru_cache(maxsize=4)
def _load(name: str, folder: str) -> Arrays | ImageFolder:
    # The folder is part of the key, so that another LOTTO_DATA is another set of arrays.
    if name in PROCEDURAL:
        return PROCEDURAL[name]()
    if name in IMAGENET:
        return _imagenet(*IMAGENET[name])
    published = PUBLISHED[name]
    return Arrays(**_published(name), mean=published.mean or None, std=published.std or None, name=name)


def _published(name: str, progress: Progress | None = None) -> Mapping[str, Any]:
    try:
        return download.get(PUBLISHED[name], progress=progress)
    except (StorageError, DataError):
        if name != "mnist1d":
            raise
        return synthetic.mnist1d(5_000)  # two seconds of work do without a cache


def _imagenet(size: int, shorter: int) -> ImageFolder:
    root = download.cache_folder() / "imagenet"
    if not root.is_dir():
        raise DataError(
            f"ImageNet is not in {root}: its licence allows no download from here. Put its folders there "
            "(train/CLASS/*.JPEG and val/CLASS/*.JPEG), or a link to them."
        )
    return ImageFolder(root, size, workers=min(8, os.cpu_count() or 1), shorter=shorter, random_crop=True)
