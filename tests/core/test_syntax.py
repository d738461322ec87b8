"""Syntax trees are the same in every Python version, and found for code of files, notebooks' cells and lambdas."""

import linecache
import textwrap

import pytest

from lotto.core.errors import NotCacheableError
from lotto.core.syntax import reading

TEXT = """
from __future__ import annotations
import math
K = 3
def deco(f): return f
class A:
    x: int = 1
    @property
    def p(self): return f"{self.x!r:>{K}} {'a' + 'b'} {self.x=}"
    async def co(self):
        async with self as s: return [i async for i in s]
    def f(self, a, /, b: int = 2, *args, c=3, **kw) -> int:
        "doc"
        y: int = a
        z = [q * K for q in range(3) if q > 1]
        try:
            y = (lambda u, v=K: u + v)(y) + sum(z) + 1e400 + 0x10 + 1j
        except (ValueError, TypeError) as e:
            y = e
        match a:
            case {"x": [1, *r], **k} if r: y = k
            case A(x=1) | None: pass
        while (n := a) > 1: a -= 1
        else: print(b"x", ..., "\\ud800", -0.0)
        d = {**kw, 1: 2}; s = a[1:2, ..., ::3]
        @deco
        class C(A, metaclass=type):
            t = K
            def g(self): return super().p + __class__.__name__ + math.pi
        yield from d
"""

DIGESTS = [
    "bf20b6587505e5d3c7826e4bce776144",
    "d8d192f1751c315e2e2f87d14fcd9c0a",
    "8e15133cba98904f32220bd7cf72275a",
]


def made(text, filename):
    """The names of a text that stands in no file but where Python looks up lines, as a notebook's cells do."""
    linecache.cache[filename] = (len(text), None, text.splitlines(True), filename)
    namespace = {"__name__": "__main__"}
    exec(compile(text, filename, "exec"), namespace)
    return namespace


def test_every_python_version_has_the_same_hashes():
    kind = made(TEXT, "<cell-1>")["A"]
    digests = [reading(f.__code__, "__main__").digest for f in (kind.p.fget, kind.co, kind.f)]
    assert digests == DIGESTS
    chains = [".".join(chain.names) for chain in reading(kind.f.__code__, "__main__").chains]
    assert chains == [
        "K", "range", "K", "sum", "ValueError", "TypeError", "A", "print", "A", "type", "K", "super", "math.pi", "deco",
    ]  # fmt: skip


def test_the_source_of_a_notebooks_cell_is_found():
    text = "def f(x):\n    return x\n"
    first = reading(made(text, "<ipython-input-1-a>")["f"].__code__, "__main__").digest
    again = reading(made("\n\n" + text + "# more\n", "<ipython-input-2-b>")["f"].__code__, "__main__").digest
    other = reading(made(text.replace("return x", "return -x"), "<ipython-input-3-c>")["f"].__code__, "__main__").digest
    assert first == again != other


def test_code_is_found_though_lines_above_it_came_in_later():
    filename = "<ipython-input-4-d>"
    function = made("def f(x):\n    return x\n", filename)["f"]
    text = "import math\n\n\ndef g(x):\n    return -x\n\n\ndef f(x):\n    return x\n"
    linecache.cache[filename] = (len(text), None, text.splitlines(True), filename)
    assert reading(function.__code__, "__main__").digest
    function = made("def f(x):\n    return x + 1\n", filename)["f"]
    linecache.cache[filename] = (len(text), None, text.splitlines(True), filename)
    with pytest.raises(NotCacheableError, match="not what runs"):
        reading(function.__code__, "__main__")


def test_what_a_name_refers_to_decides_and_not_how_it_is_spelt():
    text = textwrap.dedent("""
        first = 1
        class N:
            def f(self, second):
                self.first = second.first
                return [third for third in self.first if third]
    """)
    assert reading(made(text, "<cell-5>")["N"].f.__code__, "__main__").chains == []
