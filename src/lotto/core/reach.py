"""Everything of the user's that a function, class or object can reach, written down: equal text, equal computation.

The record of a value names what it is and lists the *definitions* that it leads to: functions by their syntax tree and
the values they read, classes by their bases and attributes, objects by their class and state, arrays by content.
Python's own and installed code stands there by name (packages with their version). Nothing depends on memory
addresses, the order of hashes, or the names of the user's modules.
"""

from __future__ import annotations

import builtins
import copyreg
import dataclasses
import enum
import functools
import hashlib
import importlib
import inspect
import json
import logging
import os
import random
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lotto.core.errors import NotCacheableError
from lotto.core.installed import PYTHON, owner
from lotto.core.syntax import Chain, Reading, module_digest, reading
from lotto.core.unreadable import METHODS, reads_files, unreadable
from lotto.core.weights import raw_bytes

_MISSING = object()
_SAID_ELSEWHERE = {
    "__module__", "__qualname__", "__name__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__slots__",
    "__firstlineno__", "__static_attributes__", "__abstractmethods__", "_abc_impl", "__parameters__", "__orig_bases__",
    "__match_args__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__classcell__", "__type_params__",
    "__dataclass_params__", "__dataclass_fields__", "__file__", "__cached__", "__loader__", "__spec__", "__package__",
    "__path__", "__builtins__", "__conditional_annotations__", "__slotnames__", "_backward_cls",
    "_autograd_function_id",
}  # fmt: skip
"""Attributes of classes and modules that are no part of what they compute, or stand in the record in other words."""
_DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType, types.WrapperDescriptorType)
_OF_DATACLASSES = {
    "__init__", "__repr__", "__eq__", "__hash__", "__lt__", "__le__", "__gt__", "__ge__", "__setattr__", "__delattr__",
    "__replace__", "__getstate__", "__setstate__",
}  # fmt: skip
_BY_TEXT = (torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype)
_HOOKS = tuple(
    name for name in vars(nn.Module()) if name.endswith(("hooks", "hooks_with_kwargs", "hooks_always_called"))
)
_PLAIN: tuple[type[Any], ...] = (dict, list, tuple, set, frozenset, str, bytes, int, float)
_IMMUTABLE = 1 << 8
"""The flag of classes whose attributes cannot be set: the compiled ones, none of Python's."""
_GLOBAL_GENERATORS = (random._inst, np.random.mtrand._rand)
LIMIT = 20_000
"""So many definitions and objects are followed."""


def record(value: Any, what: str = "", *, files: bool = False) -> Any:
    """The record of a value: its text, or with the definitions that it leads to.

    Args:
        value: anything.
        what: what it is called in the reason when it cannot be recorded.
        files: whether it may read files, because somebody states what is in them.

    Raises:
        NotCacheableError: naming the object and the line, if something it reads cannot be covered.

    >>> record([1, (2.5, "a")])
    [1, {'tuple': [{'float': '2.5'}, 'a']}]
    """
    reach = Reach(files)
    written = reach.written(value, what)
    reach.finish()
    return {"is": written, "definitions": reach.definitions} if reach.definitions else written


class Reach:
    """One walk from a value over all it leads to.

    Attributes:
        definitions: name -> what it is, in the order of the walk.
    """

    def __init__(self, files: bool = False) -> None:
        self.definitions: dict[str, Any] = {}
        self.files = files
        self._names: dict[int, str] = {}
        self._held: list[Any] = []  # so that no other object takes an id
        self._open: set[int] = set()
        self._mentions: set[str] = set()
        self._dynamic = False
        self._pending: list[tuple[str, str, Any, str]] = []

    def finish(self) -> None:
        """Follow the methods that something mentions, until nothing mentions another."""
        while True:
            due: list[tuple[str, str, Any, str]] = []
            waiting: list[tuple[str, str, Any, str]] = []
            for pending in self._pending:
                (due if self._dynamic or pending[1] in self._mentions else waiting).append(pending)
            if not due:
                return
            self._pending = waiting
            for name, attribute, value, where in due:
                self.definitions[name]["attributes"][attribute] = self.written(value, where)

    # --- values -----------------------------------------------------------------------------------------

    def written(self, value: Any, what: str) -> Any:
        """A value as JSON."""
        if value is None or type(value) in (bool, str):
            return value
        if type(value) is int:
            return value if abs(value) < 2**63 else {"int": hex(value)}
        if type(value) is float:
            return {"float": repr(value)}
        if type(value) in (complex, bytes, bytearray, type(Ellipsis), type(NotImplemented), range):
            return {type(value).__name__: repr(value)}
        if isinstance(value, _BY_TEXT):
            return {type(value).__name__: str(value)}
        if isinstance(value, Tensor):
            return self._tensor(value, what)
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
            return {
                "array": _digest(np.ascontiguousarray(value).tobytes()),
                "shape": list(value.shape),
                "dtype": str(value.dtype),
            }
        if isinstance(value, types.ModuleType):
            return self._module(value, what)
        if (
            isinstance(value, (types.GenericAlias, types.UnionType, typing.TypeVar))
            or type(value).__module__ == "typing"
        ):
            return {"typing": str(value)}
        if isinstance(value, logging.Logger):
            return {"logger": value.name}
        if isinstance(value, PurePath):
            return {"path": str(value)}
        if inspect.isclass(value):
            return self._class(value, what)
        if (inside := _inner(value)) is not None:
            return {type(value).__name__: self.written(inside, what)}
        if inspect.isfunction(value):
            return self._function(value)
        if inspect.ismethod(value):
            return {
                "method": value.__func__.__name__,
                "of": self.written(value.__self__, what),
                "is": self.written(value.__func__, what),
            }
        if inspect.isroutine(value) or isinstance(
            value, (np.ufunc, torch._ops.OpOverloadPacket, torch._ops.OpOverload)
        ):
            return self._routine(value, what)
        return self._container(value, what)

    def _container(self, value: Any, what: str) -> Any:
        if type(value) in (list, tuple, set, frozenset, dict, torch.Size):
            if id(value) in self._open:
                raise NotCacheableError(f"{what} contains itself")
            self._open.add(id(value))
            try:
                return self._items(value, what)
            finally:
                self._open.discard(id(value))
        return self._object(value, what)

    def _items(self, value: Any, what: str) -> Any:
        if isinstance(value, dict):
            # The order is part of a dict: who loops over it sees it.
            return {"dict": [[self.written(k, what), self.written(v, f"{what}[{k!r:.40}]")] for k, v in value.items()]}
        parts = [self.written(part, f"{what}[{i}]") for i, part in enumerate(value)]
        if isinstance(value, list):
            return parts
        if isinstance(value, (set, frozenset)):
            return {type(value).__name__: sorted(parts, key=_text)}
        return {"tuple": parts}

    def _tensor(self, value: Tensor, what: str) -> Any:
        if value.layout is not torch.strided:
            raise NotCacheableError(f"{what} is a sparse tensor")
        found = {
            "tensor": "meta" if value.is_meta else _digest(raw_bytes(value)),
            "shape": list(value.shape),
            "dtype": str(value.dtype),
            "gradient": value.requires_grad,
        }
        return found if type(value) in (Tensor, nn.Parameter) else {**found, "class": self.written(type(value), what)}

    # --- names ------------------------------------------------------------------------------------------

    def _named(self, value: Any, name: str) -> tuple[str, bool]:
        """The name of a definition, and whether it is new."""
        if id(value) in self._names:
            return self._names[id(value)], False
        if len(self._names) >= LIMIT:
            raise NotCacheableError(f"it leads to more than {LIMIT:,} objects, of which {name} is one")
        count, unique = 1, name
        while unique in self.definitions:
            count += 1
            unique = f"{name} ({count})"
        self._names[id(value)] = unique
        self._held.append(value)
        self.definitions[unique] = {}
        return unique, True

    # --- functions --------------------------------------------------------------------------------------

    def _routine(self, value: Any, what: str) -> Any:
        bound = getattr(value, "__self__", None)
        name = _full_name(value)
        if isinstance(bound, types.ModuleType) or bound is None or inspect.isclass(bound):
            package = owner(name.partition(".")[0]) if "." in name else PYTHON
            if package is None:
                raise NotCacheableError(f"{what} is {name}, compiled code of your own")
            module, _, own = name.rpartition(".")
            return self._of_package(package, module, own, what)
        return {"method": value.__name__, "of": self.written(bound, what)}

    def _function(self, function: types.FunctionType) -> Any:
        module = function.__globals__.get("__name__")
        package = owner(module) if module else None
        name = _short(function)
        if package is not None and owner(function.__module__ or "") is not None and _is_of_its_module(function):
            return self._of_package(package, str(module), function.__qualname__, name)
        reference, new = self._named(function, name)
        if new:
            entry = self.definitions[reference]
            if package is None:
                found = reading(function.__code__, module)
                entry["syntax"] = found.digest
                self._read(function, found, entry, name)
            else:  # made by a package's decorator, about something of the user's
                entry["package"] = [package, f"{module}.{function.__code__.co_name}"]
            self._surroundings(function, entry, name)
        return {"code": reference}

    def _surroundings(self, function: types.FunctionType, entry: dict[str, Any], name: str) -> None:
        """Defaults, closure and attributes."""
        if function.__defaults__ or function.__kwdefaults__:
            entry["defaults"] = self.written([function.__defaults__, function.__kwdefaults__], f"a default of {name}")
        for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            value = _cell(cell)
            if value is not _MISSING:
                entry.setdefault("closure", {})[variable] = self.written(value, f"the variable {variable} of {name}")
        attributes = {k: v for k, v in vars(function).items() if k != "__wrapped__"}
        if attributes:
            entry["attributes"] = self.written(attributes, f"an attribute of {name}")

    def _read(self, function: types.FunctionType, found: Reading, entry: dict[str, Any], name: str) -> None:
        """What a function reads of its module."""
        if found.changes:
            changed = ", ".join(sorted(found.changes))
            raise NotCacheableError(
                f"{name} changes {changed} outside of it ({_at(found, 0)}): it would not be the same twice"
            )
        self._mentions |= found.mentions.keys()
        self._dynamic = self._dynamic or bool(found.dynamic)
        reads: dict[str, Any] = {}
        for chain in found.chains:
            text = ".".join(chain.names)
            if text not in reads:
                reads[text] = self._chain(function, found, chain, name)
            elif chain.empty_call:
                self._chain(function, found, chain, name)
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        for chain in found.free:
            self._check_free(_cell(cells[chain.names[0]]), found, chain, name)
        for local in [n for n in found.imports if n.endswith(" ")]:
            _imported(function, *found.imports[local])
        for method in sorted(METHODS & found.mentions.keys()) if not self.files else ():
            at = _at(found, found.mentions[method])
            raise NotCacheableError(f"{name} reads files or the network with .{method} ({at}), which no key can cover")
        if reads:
            entry["reads"] = reads

    def _chain(self, function: types.FunctionType, found: Reading, chain: Chain, name: str) -> Any:
        """Follow ``config.scale`` through modules to the value that it is now."""
        where = f"{'.'.join(chain.names)}, which {name} reads ({_at(found, chain.line)}),"
        first, *rest = chain.names
        value = _imported(function, *found.imports[first]) if first in found.imports else _global(function, first)
        while isinstance(value, types.ModuleType) and rest:
            module, attribute = value, rest.pop(0)
            value = getattr(module, attribute, _MISSING)
            full = f"{module.__name__}.{attribute}"
            package = owner(module.__name__)
            if package is not None:
                self._forbid(".".join((full, *rest)), chain, found, name)
                if (
                    not isinstance(value, types.ModuleType)
                    and not inspect.isfunction(value)
                    and not inspect.isclass(value)
                ):
                    return {"package": package, "name": full}
        if value is _MISSING:
            return {"missing": True}
        self._forbid_value(value, rest, chain, found, name)
        return self.written(value, where)

    def _check_free(self, value: Any, found: Reading, chain: Chain, name: str) -> None:
        """Refuse what no key can cover of a variable of the function around, as of one of the module; values and the
        user's own are covered as what the closure holds."""
        rest = list(chain.names[1:])
        while isinstance(value, types.ModuleType) and rest and owner(value.__name__) is not None:
            full = f"{value.__name__}.{rest[0]}"
            value = getattr(value, rest.pop(0), _MISSING)
            self._forbid(".".join((full, *rest)), chain, found, name)
        self._forbid_value(value, rest, chain, found, name)

    def _forbid_value(self, value: Any, rest: Sequence[str], chain: Chain, found: Reading, name: str) -> None:
        """The same as `_forbid` for what the beginning of a chain is, and the names after it."""
        if value is os.environ:
            self._forbid("os.environ", chain, found, name)
        if inspect.isroutine(value) or inspect.isclass(value):
            self._forbid(".".join((_full_name(value), *rest)), chain, found, name)

    def _of_package(self, package: str, module: str, name: str, what: str) -> dict[str, Any]:
        """The name of something of a package's; of ours without the module, where it may move."""
        if self._refuses(f"{module}.{name}"):
            raise NotCacheableError(f"{what} is {module}.{name}, which no key can cover")
        return {"package": package, "name": name if package == "lotto" else f"{module}.{name}"}

    def _refuses(self, name: str, *, empty_call: bool = False) -> bool:
        return unreadable(name, empty_call=empty_call) and not (self.files and reads_files(name))

    def _forbid(self, full: str, chain: Chain, found: Reading, name: str) -> None:
        if self._refuses(full, empty_call=chain.empty_call):
            text = ".".join(chain.names)
            raise NotCacheableError(f"{name} uses {text} ({_at(found, chain.line)}), which no key can cover")

    # --- classes, objects, modules ----------------------------------------------------------------------

    def _class(self, value: type, what: str) -> Any:
        package = owner(value.__module__)
        name = _short(value)
        if package is not None and _is_of_its_module(value):
            patched = {k: v for k, v in vars(value).items() if inspect.isfunction(v) and _is_users(v)}
            found = self._of_package(package, value.__module__, value.__qualname__, what)
            if package == "lotto" or not patched:
                return found
            return {**found, "changed": {k: self.written(v, what) for k, v in sorted(patched.items())}}
        reference, new = self._named(value, name)
        if new:
            entry = self.definitions[reference]
            entry["bases"] = [self.written(base, f"a base of {name}") for base in value.__bases__]
            if type(value) is not type and owner(type(value).__module__) is None:
                entry["metaclass"] = self.written(type(value), f"the metaclass of {name}")
            if dataclasses.is_dataclass(value):
                entry["fields"] = self._fields(value, name)
            entry["attributes"] = {}
            self._attributes(value, reference, entry["attributes"], name)
        return {"code": reference}

    def _attributes(self, value: type, reference: str, attributes: dict[str, Any], name: str) -> None:
        inherited = [base for base in value.__mro__[1:] if owner(base.__module__) is not None]
        for attribute, part in sorted(vars(value).items()):
            if attribute in _SAID_ELSEWHERE or isinstance(part, _DESCRIPTORS) or _is_generated(value, attribute, part):
                continue
            where = f"{name}.{attribute}"
            # A method is followed when something may call it: Python, a package's base class, or code that names it.
            if _is_method(part) and not (
                attribute.startswith("__")
                or any(hasattr(base, attribute) for base in inherited)
                or attribute == "forward"
            ):
                self._pending.append((reference, attribute, part, where))
            else:
                attributes[attribute] = self.written(part, where)

    def _fields(self, value: Any, name: str) -> list[Any]:
        found = []
        for field in dataclasses.fields(value):
            default = field.default if field.default is not dataclasses.MISSING else field.default_factory
            has = default is not dataclasses.MISSING
            found.append(
                [field.name, field.init, self.written(default, f"the default of {name}.{field.name}") if has else "-"]
            )
        return found

    def _object(self, value: Any, what: str) -> Any:
        kind = type(value)
        if isinstance(value, enum.Enum):
            return {"member": value.name, "of": self.written(kind, what)}
        if kind is object:
            return {"object": "sentinel"}
        if any(value is generator for generator in _GLOBAL_GENERATORS):
            return {"generator": kind.__module__}
        reference, new = self._named(value, f"a {_short(kind)}")
        if new:
            entry = self.definitions[reference]
            entry["class"] = self.written(kind, what)
            if isinstance(content := getattr(value, "fingerprint", None), str) and _is_lottos(kind):
                entry["content"] = content
            else:
                entry["state"] = self._state(value, what)
        return {"code": reference}

    def _state(self, value: Any, what: str) -> Any:
        if isinstance(value, nn.Module):
            return self._network(value, what)
        state = {name: v for name, v in _slots(value).items() if v is not _MISSING}
        if hasattr(value, "__dict__"):
            state |= vars(value)
        if not state or _hides_state(type(value)):
            return self._reduced(value, what)
        for base in _PLAIN:
            if isinstance(value, base):
                state[f"({base.__name__})"] = base(value)
        return {k: self.written(v, f"{what}.{k}") for k, v in sorted(state.items())}

    def _network(self, value: nn.Module, what: str) -> Any:
        state = {k: v for k, v in vars(value).items() if k not in _HOOKS}
        # Hooks are kept under numbers that count up in the process.
        hooks = {k: list(vars(value)[k].values()) for k in _HOOKS if vars(value).get(k)}
        return {k: self.written(v, f"{what}.{k}") for k, v in sorted({**state, **hooks}.items())}

    def _reduced(self, value: Any, what: str) -> Any:
        """An object of a compiled class: what it would be made again from."""
        try:
            registered = copyreg.dispatch_table.get(type(value))
            parts: Any = registered(value) if registered else value.__reduce_ex__(4)
        except Exception as error:
            raise NotCacheableError(f"{what} is a {type(value).__qualname__}, whose value cannot be read") from error
        if isinstance(parts, str):
            return {"name": parts}
        return [self.written(part if not hasattr(part, "__next__") else list(part), what) for part in parts]

    def _module(self, module: types.ModuleType, what: str) -> Any:
        """A whole module: someone reads from it by a name that the text does not show."""
        if (package := owner(module.__name__)) is not None:
            return {"package": package, "name": module.__name__}
        reference, new = self._named(module, "a module")
        if new:
            entry = self.definitions[reference]
            entry["syntax"] = module_digest(module.__name__)
            names = [n for n in sorted(vars(module)) if n not in _SAID_ELSEWHERE]
            entry["attributes"] = {n: self.written(vars(module)[n], f"{module.__name__}.{n}") for n in names}
            self._dynamic = True
        return {"code": reference}


# --- small questions ------------------------------------------------------------------------------------


def _short(value: Any) -> str:
    """The name inside of the function that made it: in another process it may stand alone."""
    return str(value.__qualname__).rpartition("<locals>.")[2]


def _full_name(value: Any) -> str:
    bound = getattr(value, "__self__", None)
    module = getattr(value, "__module__", None)
    if module is None and isinstance(bound, types.ModuleType):
        module = bound.__name__
    if module is None and (kind := getattr(value, "__objclass__", None)) is not None:
        module = kind.__module__
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or type(value).__qualname__
    return f"{module}.{name}" if module else f"{type(value).__module__}.{name}"


def _global(function: types.FunctionType, name: str) -> Any:
    if name in function.__globals__:
        return function.__globals__[name]
    return getattr(builtins, name, _MISSING)


def _imported(function: types.FunctionType, level: int, module: str, attribute: str | None) -> Any:
    """What an import statement inside a function binds: the module is imported if it is not yet."""
    try:
        found = importlib.import_module("." * level + module, function.__globals__.get("__package__"))
        if attribute is None:
            return found
        if hasattr(found, attribute):
            return getattr(found, attribute)
        return importlib.import_module(f"{found.__name__}.{attribute}")
    except Exception:  # whatever a user's module may raise: the function itself will say so
        return _MISSING


def _inner(value: Any) -> list[Any] | None:
    """What a wrapper is about."""
    if isinstance(value, (staticmethod, classmethod)):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget, value.fset, value.fdel]
    if isinstance(value, functools.cached_property):
        return [value.func]
    if isinstance(value, functools.partial):
        return [value.func, list(value.args), value.keywords]
    if isinstance(value, functools.partialmethod):
        return [value.func, list(value.args), value.keywords]
    if isinstance(value, functools._lru_cache_wrapper):
        return [value.__wrapped__]
    python = getattr(type(value), "py_func", None) is not None or "py_func" in getattr(value, "__dict__", {})
    return [value.py_func] if python and inspect.isfunction(getattr(value, "py_func", None)) else None


def _is_method(part: Any) -> bool:
    kinds = (staticmethod, classmethod, property, functools.cached_property, functools.partialmethod)
    return inspect.isfunction(part) or isinstance(part, kinds)


def _is_generated(kind: type, attribute: str, part: Any) -> bool:
    """Whether Python made a method of a dataclass or named tuple: the fields say all of it."""
    function = inspect.unwrap(getattr(part, "__func__", part)) if callable(part) or _is_method(part) else None
    if not inspect.isfunction(function):
        return False
    if dataclasses.is_dataclass(kind):
        return attribute in _OF_DATACLASSES and function.__code__.co_filename == "<string>"
    module = str(function.__globals__.get("__name__"))
    return issubclass(kind, tuple) and hasattr(kind, "_fields") and module.startswith(("namedtuple_", "collections"))


def _is_of_its_module(value: Any) -> bool:
    """Whether a function or class is what its module and name say, and no wrapper that only bears the name."""
    found: Any = sys.modules.get(value.__module__)
    for part in value.__qualname__.split("."):
        found = inspect.getattr_static(found, part, None) if found is not None else None
    found = getattr(found, "__func__", found)
    return found is value or (getattr(found, "__wrapped__", None) is value and not inspect.isclass(value))


def _is_users(function: types.FunctionType) -> bool:
    return (
        owner(function.__globals__.get("__name__") or "__main__") is None and function.__code__.co_filename[:1] != "<"
    )


def _is_lottos(kind: type) -> bool:
    return any(owner(base.__module__) == "lotto" for base in kind.__mro__)


def _hides_state(kind: type) -> bool:
    """Whether a class is compiled, or has a compiled base other than the plain ones: `vars` does not show all of it."""
    return any(
        base.__flags__ & _IMMUTABLE and base not in (object, *_PLAIN, Exception, BaseException) for base in kind.__mro__
    )


def _slots(value: Any) -> Mapping[str, Any]:
    names: list[str] = []
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return {n: getattr(value, n, _MISSING) for n in names if n not in ("__dict__", "__weakref__")}


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return _MISSING


def _at(found: Reading, line: int) -> str:
    name = os.path.basename(found.file)
    return f"{name}, line {line}" if line else name


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _digest(content: Any) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
