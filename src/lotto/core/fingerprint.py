"""What makes two runs the same run: a hash of a typed canonical form.

Frozen dataclasses say in their fields' metadata what each field has a part in (`affects`), and `entries` makes the
canonical form of it: nothing lists the fields a second time.

Numbers that are equal hash alike (1 and 1.0), steps are iterations. Functions, classes and objects of the user's are
all that they reach (`core.reach`). What cannot be covered raises `NotCacheableError`: such a run is not stored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lotto.core.errors import NotCacheableError
from lotto.core.installed import owner

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "SCHEMA", "Cacheable", "NotCacheableError", "affects", "canonical", "content", "digest", "entries",
    "fields_that_affect", "is_users", "kind", "record", "structure",
]  # fmt: skip

SCHEMA = 2
"""Raised whenever the meaning of a stored run changes; older entries are then simply not found."""

_NOTHING = object()


class Cacheable(ABC):
    """Something that the store can keep: a training or another computation."""

    @property
    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Everything the outcome depends on, in canonical form.

        Raises:
            NotCacheableError: if a model or a function of it cannot be fingerprinted.
        """

    @cached_property
    def key(self) -> str | None:
        """Hash of the description; None when there is none, and so nothing is stored."""
        return None if self.not_cacheable else digest(self.description)

    @cached_property
    def not_cacheable(self) -> str:
        """Why there is no key: what it reads that a key cannot cover; empty when there is one."""
        try:
            self.description  # noqa: B018 (it raises, or it is there)
        except NotCacheableError as error:
            return str(error) or "its code cannot be read"
        return ""


def affects(
    what: str, *, entry: str | None = "", of: Callable[[Any], Any] | None = None, unless: Any = _NOTHING
) -> dict[str, Any]:
    """Metadata of a dataclass's field: what the field has a part in, and its entry in the canonical form.

    Args:
        what: a word of the dataclass's own, such as ``training`` or ``nothing``.
        entry: the entry's name, by default the field's; None = the field stands in another field's entry.
        of: from the dataclass to the entry's value; by default the field's value.
        unless: a value at which there is no entry, for fields that came later.
    """
    return {"affects": what, "entry": entry, "of": of, "unless": unless}


def entries(value: Any, kinds: Collection[str], default: str = "") -> dict[str, Any]:
    """The entries of a dataclass's fields that have a part in one of ``kinds``, not yet in canonical form.

    Args:
        value: a dataclass.
        kinds: words of `affects`.
        default: the word of fields without metadata.
    """
    found = {}
    for field in dataclasses.fields(value):
        about = field.metadata or affects(default)
        if about["affects"] not in kinds or about["entry"] is None or getattr(value, field.name) == about["unless"]:
            continue
        found[about["entry"] or field.name] = about["of"](value) if about["of"] else getattr(value, field.name)
    return found


def fields_that_affect(kind: type, kinds: Collection[str]) -> set[str]:
    """Names of a dataclass's fields that have a part in one of ``kinds``."""
    return {field.name for field in dataclasses.fields(kind) if field.metadata.get("affects") in kinds}


def canonical(value: Any) -> Any:
    """Turn a value into JSON whose text is the same whenever the value is."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        if isinstance(value, float) and not math.isfinite(value):
            return repr(value)
        return int(value) if value == int(value) else value
    if isinstance(value, Mapping):
        return {str(k): canonical(value[k]) for k in sorted(value, key=str)}
    if isinstance(value, (list, tuple)):
        return [canonical(v) for v in value]
    return record(value)


def record(value: Any, what: str = "", *, files: bool = False) -> Any:
    """What a value of the user's is and all that it reaches, see `lotto.core.reach.record`."""
    from lotto.core import reach  # which imports PyTorch; what the store has written is made of plain values

    return reach.record(value, what, files=files)


def digest(value: Any) -> str:
    """Hash of the canonical form, 32 hexadecimal digits."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def kind(value: object) -> Any:
    """Which class a value is of: the name of one of ours, the whole record of anyone else's."""
    return record(type(value)) if is_users(value) else type(value).__name__


def is_users(value: object) -> bool:
    """Whether a value is code of the user's or of a package other than this one, or an object of such a class."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return False
    named = value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)
    return owner(getattr(named, "__module__", None) or "__main__") != "lotto"


def content(data: Any) -> dict[str, Any]:
    """The entries of a data set: its content, and if its class is the user's, what that is and what else it holds."""
    if not is_users(data):
        return {"content": data.fingerprint}
    return {"content": data.fingerprint, "kind": kind(data), "more": record(data.additions, "the data set")}


def structure(module: nn.Module) -> dict[str, Any]:
    """What a network is made of: its printed structure, its parameters' shapes, and the classes of its parts."""
    kinds = {type(part): None for part in module.modules()}
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(module))
    return {
        "structure": hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest(),
        "parameters": {n: [list(p.shape), p.requires_grad] for n, p in module.named_parameters()},
        "parts": sorted(kinds, key=lambda k: (k.__module__, k.__qualname__)),
    }
