"""Options from a TOML file: what stands in it is typed before what the user types, who wins."""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from lotto.core.errors import UsageError, text, unknown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OPTION = "--config"
SHORT = {"optimizer.lr": "lr"}
"""Fields of a recipe that have an option of another name."""


def with_config(name: str, command: Callable[..., None], given: Sequence[str]) -> list[str]:
    """The arguments of a command with those of its ``--config`` file in the file's place.

    Args:
        name: of the command.
        command: its function, whose keyword arguments are the options.
        given: what was typed after its name.

    Raises:
        UsageError: if the file cannot be read, or has what is no option of the command.
    """
    rest, files = _without_config(given)
    if not files or "config" not in signature(command).parameters:
        return [*given]
    if len(files) > 1:
        raise UsageError(f"{OPTION} names one file; got {' and '.join(files)}.")
    known = options_of(command)
    typed = {known[word].name for word in _typed(rest) if word in known}
    read: list[str] = []
    for given_name, value in _read(Path(files[0])).items():
        if (dashed := given_name.replace("_", "-")) not in known:
            raise unknown(f"option of lotto {name} in {files[0]}", dashed, known)
        option = known[dashed]
        if option.takes is Takes.VALUES:
            read += [f"--{option.name}={item}" for item in _items(option.name, value) if not _is_typed(item, typed)]
        elif option.name not in typed:
            read += _argument(option, value)
    return [*read, *rest]


class Takes(Enum):
    """What an option takes."""

    VALUE = "a value"
    VALUES = "a value each time that it is typed"
    NOTHING = "nothing: it switches something on"
    NO = "nothing: typed with no- it switches something off"


@dataclass(frozen=True)
class Option:
    """An option as it is typed, without its dashes."""

    name: str
    takes: Takes


def options_of(command: Callable[..., None]) -> dict[str, Option]:
    """The options of a command by name, and by what else they are called."""
    hints = typing.get_type_hints(command, include_extras=True)
    found: dict[str, Option] = {}
    for parameter in signature(command).parameters.values():
        hint = hints[parameter.name]
        if is_dataclass(hint):
            inner = typing.get_type_hints(hint, include_extras=True)
            for f in fields(hint):
                found |= _named(f.name, inner[f.name], f.default)
        elif parameter.kind is Parameter.KEYWORD_ONLY and parameter.name != "config":
            found |= _named(parameter.name, hint, parameter.default)
    return found


def _named(name: str, hint: Any, default: Any) -> dict[str, Option]:
    aliases: list[str] = []
    while typing.get_origin(hint) is typing.Annotated:
        hint, *notes = typing.get_args(hint)
        aliases += [alias for note in notes for alias in getattr(note, "aliases", None) or ()]
    takes = Takes.VALUES if typing.get_origin(hint) is tuple else Takes.VALUE
    if hint is bool:
        takes = Takes.NO if default else Takes.NOTHING
    option = Option(name.rstrip("_").replace("_", "-"), takes)  # a keyword of Python's has an underscore more
    return {option.name: option, **{alias.removeprefix("--"): option for alias in aliases}}


def _without_config(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """What was typed without the file's name, and the names."""
    rest, files = [], []
    left = iter(given)
    for word in left:
        if word == OPTION:
            files.append(next(left, ""))
        elif word.startswith(f"{OPTION}="):
            files.append(word.partition("=")[2])
        else:
            rest.append(word)
    return rest, files


def _typed(rest: Sequence[str]) -> set[str]:
    """The names of the options that were typed."""
    names = {word[2:].partition("=")[0].replace("_", "-") for word in rest if word.startswith("--")}
    return names | {name.removeprefix("no-") for name in names}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as handle:
            return tomllib.load(handle)
    except OSError as error:
        raise UsageError(f"{OPTION} {text(str(path))} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{text(str(path))} is no TOML ({error}). A line is, for instance: levels = 8") from error


def _argument(option: Option, value: Any) -> list[str]:
    name = option.name
    if option.takes in (Takes.NOTHING, Takes.NO):
        if not isinstance(value, bool):
            raise UsageError(f"{name} in a {OPTION} file is true or false; got {text(value)}.")
        default = option.takes is Takes.NO
        return [] if value is default else [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return [f"--{name}={','.join(map(str, value))}"]
    if not isinstance(value, str | int | float):
        raise UsageError(f"{name} in a {OPTION} file is a number, a text or a list of such; got {text(value)}.")
    return [f"--{name}={value}"]


def _items(name: str, value: Any) -> list[str]:
    """The values of an option that may be typed several times; of ``set`` also a table of fields."""
    if isinstance(value, dict):
        return [f"{field}={json.dumps(at)}" for field, at in _flat(value)]
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise UsageError(f"{name} in a {OPTION} file is a text or a list of texts; got {text(value)}.")
    return found


def _flat(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", at) for inner, at in _flat(value))
        else:
            yield name, value


def _is_typed(item: str, typed: set[str]) -> bool:
    """Whether a field that the file sets has an option of its own, which was typed."""
    field = item.partition("=")[0].strip().replace("__", ".")
    return SHORT.get(field, field).replace("_", "-") in typed - {"set"}
