"""The source of a piece of running code, as a syntax tree: what it is, and which names of its surroundings it reads.

Comments, formatting, docstrings and annotations are no part of what code computes. Bytecode is only used to find the
code in its file, and to see that the file still is what runs; it enters no hash, so that Python versions agree.
"""

from __future__ import annotations

import ast
import dis
import hashlib
import json
import linecache
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any, cast

from lotto.core.errors import NotCacheableError

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_IGNORED = {"annotation", "returns", "ctx", "kind", "type_comment", "type_ignores", "decorator_list"}
_DYNAMIC = {"getattr", "hasattr", "vars", "dir", "methodcaller", "attrgetter"}


@dataclass(frozen=True)
class Chain:
    """A name of the surroundings with the attributes that are read of it: ``config.scale``.

    Attributes:
        names: the parts, in order.
        line: where it is read, in its file.
        empty_call: whether it is called without arguments.
    """

    names: tuple[str, ...]
    line: int
    empty_call: bool = False


@dataclass
class Reading:
    """What a function is and what it reads.

    Attributes:
        digest: hash of the syntax tree.
        chains: what it reads of its module, in the order of the text.
        free: what it reads of the functions around it.
        imports: local names bound by import statements inside: (level, module, attribute or None).
        mentions: every attribute's name and every text that could be one, with its line: methods that it may call.
        dynamic: the line of a `getattr` and the like whose name is computed: it may call any method; 0 = there is none.
        changes: variables outside of it that it sets.
        file: where it stands.
    """

    digest: str
    file: str
    chains: list[Chain] = field(default_factory=list)
    free: list[Chain] = field(default_factory=list)
    imports: dict[str, tuple[int, str, str | None]] = field(default_factory=dict)
    mentions: dict[str, int] = field(default_factory=dict)
    dynamic: int = 0
    changes: set[str] = field(default_factory=set)


def reading(code: CodeType, module: str | None) -> Reading:
    """Read the source of a function's code.

    Args:
        code: the code object.
        module: the module it was defined in.

    Raises:
        NotCacheableError: if there is no source, or the file has been edited since it was read in.
    """
    return _reading(code, code.co_filename, module)


@lru_cache(maxsize=4096)
def _reading(code: CodeType, filename: str, module: str | None) -> Reading:
    # The file's name is an argument since equal code of two files is equal.
    node = _find(code, _text(filename, module), module)
    found = Reading(tree_digest(node), filename)
    outside = set(_globals(code))
    visit = _Visitor(found, outside, {*code.co_freevars})
    for part in node.body if isinstance(node.body, list) else [node.body]:
        visit.visit(part)
    stored = set(_globals(code, store=True)) | ({*code.co_freevars} & visit.nonlocals)
    found.changes = stored
    return found


def tree_digest(node: ast.AST) -> str:
    """Hash of a syntax tree, without what has no part in what it computes.

    >>> import ast
    >>> tree_digest(ast.parse("x = 1")) == tree_digest(ast.parse("x  =  1  # one"))
    True
    """
    text = json.dumps(_plain(node, outermost=True), separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def module_digest(name: str) -> str:
    """Hash of the syntax tree of a whole module.

    Raises:
        NotCacheableError: if its source cannot be read.
    """
    filename = getattr(sys.modules[name], "__file__", None) or name
    return tree_digest(_parsed(_text(filename, name), name)[0])


def _plain(node: Any, outermost: bool = False) -> Any:
    if isinstance(node, ast.Constant):
        constant = node.value
        if isinstance(constant, (str, bool)) or constant is None:
            return ["Constant", constant]
        return [type(constant).__name__, hex(constant) if isinstance(constant, int) else repr(constant)]
    if isinstance(node, ast.arguments) and outermost:
        node = ast.arguments(**{**dict(ast.iter_fields(node)), "defaults": [], "kw_defaults": []})
    if isinstance(node, ast.JoinedStr):
        return ["JoinedStr", *_merged(node.values)]
    if isinstance(node, ast.AST):
        ignored = _IGNORED if outermost else _IGNORED - {"decorator_list"}
        fields = []
        for name, value in ast.iter_fields(node):
            if name in ignored or value is None or value == []:
                continue
            if name == "name" and outermost:
                continue
            if name == "body" and isinstance(value, list):
                value = _without_docstring(node, value)
            # The defaults of the outermost function are values that it has; those of functions inside are code.
            fields.append([name, _plain(value, outermost and name == "args")])
        return [type(node).__name__, *fields]
    if isinstance(node, list):
        return [_plain(part) for part in node]
    return node


def _merged(parts: list[ast.expr]) -> list[Any]:
    """The parts of a formatted text; Python versions cut its constant stretches in other places."""
    found: list[Any] = []
    for part in map(_plain, parts):
        if part[0] == "Constant" and found and found[-1][0] == "Constant":
            found[-1] = ["Constant", found[-1][1] + part[1]]
        elif part != ["Constant", ""]:
            found.append(part)
    return found


def _without_docstring(node: ast.AST, body: list[Any]) -> list[Any]:
    documented = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module))
    first = body[0]
    if documented and isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return body[1:] if isinstance(first.value.value, str) else body
    return body


class _Visitor(ast.NodeVisitor):
    """Collects what a function reads."""

    def __init__(self, found: Reading, outside: set[str], free: set[str]) -> None:
        self.found, self.outside, self.free = found, outside, free
        self.nonlocals: set[str] = set()

    def _chain(self, node: ast.expr, empty_call: bool = False) -> bool:
        names: list[str] = []
        at = node
        while isinstance(at, ast.Attribute):
            names.append(at.attr)
            at = at.value
        if not isinstance(at, ast.Name):
            return False
        self.found.mentions.update(dict.fromkeys(names, node.lineno))
        if at.id in self.outside or at.id in self.found.imports:
            self.found.chains.append(Chain((at.id, *reversed(names)), node.lineno, empty_call))
        elif at.id in self.free:
            self.found.free.append(Chain((at.id, *reversed(names)), node.lineno, empty_call))
        return True

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.found.mentions[node.attr] = node.lineno
        if node.attr == "__dict__":
            self.found.dynamic = self.found.dynamic or node.lineno
        if not self._chain(node):
            self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        self._chain(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and node.value.isidentifier():
            self.found.mentions[node.value] = node.lineno

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in _DYNAMIC and not all(isinstance(a, ast.Constant) for a in node.args[1:2] or [node]):
            self.found.dynamic = self.found.dynamic or node.lineno
        if node.args or node.keywords or not self._chain(node.func, empty_call=True):
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.partition(".")[0]
            self.found.imports[alias.asname or top] = (0, alias.name if alias.asname else top, None)
            if not alias.asname and alias.name != top:  # the submodule is imported with it
                self.found.imports[f"{alias.name} "] = (0, alias.name, None)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self.found.imports[alias.asname or alias.name] = (node.level, node.module or "", alias.name)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        self.nonlocals.update(node.names)

    def _annotated(self, node: Any) -> None:
        for name, value in ast.iter_fields(node):
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.AST) and name not in ("annotation", "returns"):
                    self.visit(part)

    visit_AnnAssign = visit_FunctionDef = visit_AsyncFunctionDef = visit_arg = _annotated


def _globals(code: CodeType, store: bool = False) -> Iterator[str]:
    """Names that code and the code inside it take from, or set in, the module."""
    kinds = ("STORE_GLOBAL", "DELETE_GLOBAL") if store else ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_CLASSDEREF")
    for instruction in dis.get_instructions(code):
        if instruction.opname in kinds or (not store and instruction.opname.startswith("LOAD_FROM_DICT_OR")):
            yield str(instruction.argval)
    for inside in code.co_consts:
        if isinstance(inside, CodeType):
            yield from _globals(inside, store)


# --- from running code to its source --------------------------------------------------------------------


def _text(filename: str, module: str | None) -> str:
    linecache.checkcache(filename)
    lines = linecache.getlines(filename, getattr(sys.modules.get(module or ""), "__dict__", None))
    if not lines:
        raise NotCacheableError(f"there is no source of what stands in {filename}")
    return "".join(lines)


def _tree(text: str, filename: str, flags: int) -> ast.Module:
    """A module's syntax tree.

    Python 3.11 counts the depth of all trees that are being made in one place (python/cpython#106905): of two at once,
    in two threads or by a collection of garbage in the midst of one, one may fail.
    """
    for _ in range(5):
        with suppress(SystemError):
            return cast(ast.Module, compile(text, filename, "exec", flags, dont_inherit=True))
    raise NotCacheableError(f"{filename} cannot be read as a tree")


@lru_cache(maxsize=256)
def _parsed(text: str, filename: str) -> tuple[ast.Module, dict[tuple[str, int], list[Function]], list[CodeType]]:
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        tree = _tree(text, filename, flags)
        whole = compile(tree, filename, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise NotCacheableError(f"{filename} is not the source of what runs: {error}") from error
    nodes: dict[tuple[str, int], list[Function]] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min(part.lineno for part in (node, *node.decorator_list))
            nodes.setdefault((node.name, first), []).append(node)
        elif isinstance(node, ast.Lambda):
            nodes.setdefault(("<lambda>", node.lineno), []).append(node)
    for group in nodes.values():
        group.sort(key=lambda node: (node.lineno, node.col_offset))
    return tree, nodes, list(_inside(whole))


def _inside(code: CodeType) -> Iterator[CodeType]:
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield part
            yield from _inside(part)


def _find(code: CodeType, text: str, module: str | None) -> Function:
    """The function of a file that some running code was made from."""
    _, nodes, codes = _parsed(text, code.co_filename)
    named = [other for other in codes if other.co_name == code.co_name]
    same = [other for other in named if same_code(other, code)]
    same.sort(key=lambda other: other.co_firstlineno != code.co_firstlineno)
    if not same and not _read_as_it_is(module):
        same = [code]  # an import hook has changed it: the line is what there is to go by
    for other in same:
        group = nodes.get((other.co_name, other.co_firstlineno), [])
        if len(group) > 1:
            # Several lambdas in a line: they are compiled in the order of the text.
            peers = sorted((c for c in named if c.co_firstlineno == other.co_firstlineno), key=_column)
            at = next((i for i, peer in enumerate(peers) if same_code(peer, other)), None)
            if at is not None and (len(peers) == len(group) or len({tree_digest(n) for n in group}) == 1):
                return group[min(at, len(group) - 1)]
        elif group:
            return group[0]
    where = f"{code.co_filename}, line {code.co_firstlineno}"
    raise NotCacheableError(
        f"the source of {code.co_name} ({where}) is not what runs: it was edited or made by a program"
    )


def _column(code: CodeType) -> tuple[int, int]:
    positions = getattr(code, "co_positions", None)
    if positions is None:
        return (0, 0)
    return min(
        ((p[0], p[2]) for p in positions() if p[0] is not None and p[2] is not None and p[2] >= 0), default=(0, 0)
    )


def same_code(a: CodeType, b: CodeType) -> bool:
    """Whether two code objects do the same, wherever they stand."""
    parts = ("co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_argcount", "co_kwonlyargcount")
    if any(getattr(a, part) != getattr(b, part) for part in parts) or len(a.co_consts) != len(b.co_consts):
        return False
    return all(
        same_code(x, y)
        if isinstance(x, CodeType) and isinstance(y, CodeType)
        else type(x) is type(y) and repr(_ordered(x)) == repr(_ordered(y))
        for x, y in zip(a.co_consts, b.co_consts, strict=True)
    )


def _ordered(value: Any) -> Any:
    return sorted(map(repr, value)) if isinstance(value, frozenset) else value


def _read_as_it_is(module: str | None) -> bool:
    """Whether nothing stands between a module's file and its code, as import hooks of test tools and others do."""
    loaded = sys.modules.get(module or "")
    loader = getattr(getattr(loaded, "__spec__", None), "loader", None) or getattr(loaded, "__loader__", None)
    return loader is None or type(loader) is SourceFileLoader
