"""What a data set of somebody's holds, as a value that a key can be made of: read in pieces, never copied whole."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping
from mmap import mmap
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from torch import Tensor, nn, strided
from torch.utils.data import ConcatDataset, StackDataset, Subset, TensorDataset

from lotto.core import fingerprint
from lotto.core.errors import NotCacheableError
from lotto.core.installed import PYTHON, owner
from lotto.core.weights import raw_bytes
from lotto.data.file_digests import file_digests

PIECE = 1 << 22
"""Bytes that are read at once."""
OF_TORCH = (TensorDataset, Subset, ConcatDataset, StackDataset)
"""Data sets of torch's that hold no more than their attributes."""
READ_NOTHING = (PYTHON, "torch", "numpy", "lotto")
"""Packages whose objects are what their attributes are; a class that reads files says so by other names."""
TRANSFORMS = "torchvision.transforms"
PLAIN = (str, int, float, bool, type(None))


@runtime_checkable
class HasContent(Protocol):
    """Rows of ours that say what they hold."""

    def content_digest(self) -> Any:
        """What a key is made of."""


def content(value: Any, what: str = "the data set", known: dict[int, tuple[Any, Any]] | None = None) -> Any:
    """The record of a data set: what it is made of, arrays and tables by a hash of their content.

    Objects of the user's classes are the code of the class and what they hold.

    Args:
        value: a data set, or a part of one.
        what: what it is called in the reason.
        known: tables that have been read before, by their id, and their records; added to.

    Raises:
        NotCacheableError: naming the part, if it is of a package's class whose content nobody here can read.

    >>> a, b = (content(np.arange(6).reshape(2, 3)[:, :n]) for n in (2, 3))
    >>> a["shape"], a["array"] == b["array"]
    ([2, 2], False)
    """
    return _Contents({} if known is None else known).of(value, what)


class _Contents:
    def __init__(self, known: dict[int, tuple[Any, Any]]) -> None:
        self.known, self.open = known, list[Any]()

    def of(self, value: Any, what: str) -> Any:
        if isinstance(value, Tensor) and value.layout is strided:
            return {"tensor": _hashed(value), "dtype": str(value.dtype), "shape": list(value.shape)}
        if isinstance(value, np.ndarray):
            return {"array": digest_of(value), "dtype": str(value.dtype), "shape": list(value.shape)}
        if isinstance(value, pd.DataFrame | pd.Series | pd.Index):
            return _frame(value)
        if isinstance(value, HasContent):
            return value.content_digest()
        if is_huggingface(value):  # a table never changes
            if id(value) not in self.known:
                self.known[id(value)] = (value, _huggingface(value))
            return self.known[id(value)][1]
        if isinstance(value, PLAIN) or not _has_parts(value):
            return fingerprint.record(value, what)
        if any(value is other for other in self.open):
            raise NotCacheableError(f"{what} contains itself")
        self.open.append(value)
        found = self._parts(value, what)
        self.open.pop()
        return found

    def _parts(self, value: Any, what: str) -> Any:
        if type(value) in (list, tuple):
            if all(type(part) in PLAIN for part in value):
                return {type(value).__name__: _listed(value)}
            return {type(value).__name__: [self.of(part, f"{what}[{i}]") for i, part in enumerate(value)]}
        if type(value) is dict:
            return {"dict": [[self.of(k, what), self.of(v, f"{what}[{k!r:.40}]")] for k, v in value.items()]}
        kind = type(value)
        state = {n: self.of(v, f"{what}.{n}") for n, v in sorted(vars(value).items())}
        return {"kind": fingerprint.record(kind, what), "state": state}


def _has_parts(value: Any) -> bool:
    """Whether a value is what its class and attributes, or its items, are; else `record` says what it is.

    Raises:
        NotCacheableError: if it is of a package's class that may read files.
    """
    kind = type(value)
    if kind in (list, tuple, dict) or isinstance(value, OF_TORCH):
        return True
    if inspect.isroutine(value) or inspect.isclass(value) or isinstance(value, nn.Module):
        return False
    package = owner(kind.__module__ or "")
    if package is None:
        return hasattr(value, "__dict__") and not hasattr(kind, "__slots__")
    if package in READ_NOTHING or kind.__module__.startswith(TRANSFORMS):
        return False
    raise NotCacheableError(
        f"the data hold a {kind.__module__}.{kind.__qualname__}, whose content cannot be covered (state it: "
        "fingerprint='...')"
    )


def digest_of(array: np.ndarray) -> str:
    """The hash of an array's content, 32 hexadecimal digits; of one that is a file opened to be read, by the file."""
    if array.dtype.hasobject:
        return _listed(array.reshape(-1).tolist())
    if isinstance(array, np.memmap) and isinstance(array.base, mmap) and array.mode == "r" and array.flags.c_contiguous:
        file = Path(str(array.filename))
        return f"{array.offset}:{file_digests([file])[file]}"
    return _hashed(array)


def _hashed(values: np.ndarray | Tensor) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for piece in pieces(values):
        if isinstance(piece, Tensor):
            digest.update(raw_bytes(piece))
        else:
            digest.update(np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def pieces(values: Any) -> Iterator[Any]:
    """Some examples of an array or a tensor after the other, about `PIECE` bytes at once."""
    if not values.ndim:
        yield values
        return
    rows = max(1, PIECE // max(1, values[:1].nbytes))
    for first in range(0, len(values), rows):
        yield values[first : first + rows]


def _listed(values: Any) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for value in values:
        if not isinstance(value, (*PLAIN, np.generic)):
            raise NotCacheableError(f"an array of objects holds a {type(value).__qualname__}, which no key can cover")
        digest.update(f"{type(value).__name__}:{value!r}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _frame(frame: pd.DataFrame | pd.Series | pd.Index) -> Any:
    """Column by column."""
    if isinstance(frame, pd.DataFrame):
        columns = [[str(name), _frame(frame.iloc[:, i])] for i, name in enumerate(frame.columns)]
        return {"frame": columns, "index": _frame(frame.index)}
    values = frame.to_numpy()
    return {"column": digest_of(values), "name": str(frame.name), "dtype": str(frame.dtype)}


def is_huggingface(value: Any) -> bool:
    """Whether it is a ``datasets.Dataset``, without importing what may not be installed."""
    return any((c.__module__, c.__qualname__) == ("datasets.arrow_dataset", "Dataset") for c in type(value).__mro__)


class _Sink:
    """A file that is only hashed."""

    closed = False

    def __init__(self) -> None:
        self.digest = hashlib.blake2b(digest_size=16)

    def write(self, block: Any) -> int:
        self.digest.update(block)
        return len(block)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _huggingface(data: Any) -> Mapping[str, Any]:
    """Its columns as Arrow writes them, its rows in their order, and how they are shown: a transform is code."""
    import pyarrow

    shown, sink = data.format, _Sink()
    plain = data.with_format("arrow")
    with pyarrow.ipc.new_stream(sink, plain[:0].schema.remove_metadata()) as stream:
        for table in plain.iter(1000):
            stream.write_table(table.replace_schema_metadata(None).combine_chunks())
    about = {
        "type": shown["type"],
        "columns": shown["columns"],
        "how": fingerprint.record(shown["format_kwargs"], "the format"),
    }
    return {"rows": sink.digest.hexdigest(), "features": str(data.features), **about}
