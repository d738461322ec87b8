"""A key covers all that the user's code reaches, and nothing else."""

import importlib
import itertools
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from lotto.core import fingerprint
from lotto.core.fingerprint import NotCacheableError
from lotto.core.reach import record

_COUNT = itertools.count()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Makes a module of a text, with a helper module beside it that the text knows as ``helper``."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make(text, helper="", name=None):
        number = next(_COUNT)
        other = f"helper_{number}"
        (tmp_path / f"{other}.py").write_text(textwrap.dedent(helper))
        name = name or f"users_{number}"
        head = f"import torch\nfrom torch import nn\nimport {other} as helper\n"
        path = tmp_path / f"{name}.py"
        path.write_text(head + textwrap.dedent(text).replace("HELPER", other))
        importlib.invalidate_caches()
        return importlib.import_module(name)

    return make


def digest(value):
    return fingerprint.digest(record(value))


NET = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 3)
    def forward(self, x):
        return {}
"""
PAIRS = {
    "a value of a module": (NET.format("self.a(x) * helper.SCALE"), "SCALE = 1.0", "SCALE = 2.0"),
    "a function of a module": (NET.format("helper.act(self.a(x))"), "def act(x): return x", "def act(x): return x * 0"),
    "a value imported by name": (
        "from HELPER import SCALE\n" + NET.format("self.a(x) * SCALE"), "SCALE = 1.0", "SCALE = 2.0",
    ),
    "an int made a float": (NET.format("self.a(x) * helper.SCALE"), "SCALE = 1", "SCALE = 1.0"),
    "a helper of a helper": (
        NET.format("helper.act(x)"), "def one(x): return x\ndef act(x): return one(x)",
        "def one(x): return x + 1\ndef act(x): return one(x)",
    ),
    "a class attribute": (NET.format("helper.Config.scale * x"), "class Config: scale = 1", "class Config: scale = 2"),
    "an inherited attribute": (
        "class Net(helper.Base):\n    def forward(self, x): return x * self.scale",
        "from torch import nn\nclass Base(nn.Module): scale = 1", "from torch import nn\nclass Base(nn.Module): scale = 2",
    ),
    "an inherited method": (
        "class Net(helper.Base): pass",
        "from torch import nn\nclass Base(nn.Module):\n    def forward(self, x): return x",
        "from torch import nn\nclass Base(nn.Module):\n    def forward(self, x): return -x",
    ),
    "a base of a base": (
        "class Net(helper.Base): pass",
        "from torch import nn\nclass Root(nn.Module):\n    k = 1\nclass Base(Root): pass",
        "from torch import nn\nclass Root(nn.Module):\n    k = 2\nclass Base(Root): pass",
    ),
    "a nested class": (
        NET.format("helper.Outer.Inner.scale * x"), "class Outer:\n    class Inner: scale = 1",
        "class Outer:\n    class Inner: scale = 2",
    ),
    "a cached property": (
        "class Net(helper.Base):\n    def forward(self, x): return x * self.scale",
        "import functools\nfrom torch import nn\nclass Base(nn.Module):\n    @functools.cached_property\n    def scale(self): return 1",
        "import functools\nfrom torch import nn\nclass Base(nn.Module):\n    @functools.cached_property\n    def scale(self): return 2",
    ),
    "a property": (
        "class Net(helper.Base):\n    def forward(self, x): return x * self.scale",
        "from torch import nn\nclass Base(nn.Module):\n    @property\n    def scale(self): return 1",
        "from torch import nn\nclass Base(nn.Module):\n    @property\n    def scale(self): return 2",
    ),
    "a static method": (
        NET.format("helper.Tools.act(x)"), "class Tools:\n    @staticmethod\n    def act(x): return x",
        "class Tools:\n    @staticmethod\n    def act(x): return -x",
    ),
    "a closure": ("Net = helper.make()", "def make(k=1):\n    return lambda: k", "def make(k=2):\n    return lambda: k"),
    "a default": ("def Net(k=helper.K): return k", "K = 1", "K = 2"),
    "a default by keyword": ("def Net(*, k=helper.K): return k", "K = 1", "K = 2"),
    "a partial": ("import functools\nNet = functools.partial(nn.Linear, helper.K)", "K = 1", "K = 2"),
    "a decorator's argument": (
        "@helper.scaled\ndef Net(x): return x",
        "import functools\ndef by(k):\n    def deco(f):\n        @functools.wraps(f)\n        def inner(x): return f(x) * k\n"
        "        return inner\n    return deco\nscaled = by(1)",
        "import functools\ndef by(k):\n    def deco(f):\n        @functools.wraps(f)\n        def inner(x): return f(x) * k\n"
        "        return inner\n    return deco\nscaled = by(2)",
    ),
    "what a package's decorator is about": (
        "Net = helper.act", "import torch\n@torch.no_grad()\ndef act(x): return x",
        "import torch\n@torch.no_grad()\ndef act(x): return -x",
    ),
    "an object's attribute": (
        NET.format("x * helper.config.scale"), "class C:\n    def __init__(self): self.scale = 1\nconfig = C()",
        "class C:\n    def __init__(self): self.scale = 2\nconfig = C()",
    ),
    "an object's slot": (
        NET.format("x * helper.config.scale"),
        "class C:\n    __slots__ = ('scale',)\n    def __init__(self, k): self.scale = k\nconfig = C(1)",
        "class C:\n    __slots__ = ('scale',)\n    def __init__(self, k): self.scale = k\nconfig = C(2)",
    ),
    "a table of functions": (
        NET.format("helper.ACTS['a'](x)"), "import torch\nACTS = {'a': lambda x: x}", "import torch\nACTS = {'a': lambda x: -x}",
    ),
    "the order of a dict": (NET.format("[*helper.D]"), "D = {'a': 1, 'b': 2}", "D = {'b': 2, 'a': 1}"),
    "a list's order": (NET.format("helper.D"), "D = [1, 2]", "D = [2, 1]"),
    "a set": (NET.format("helper.D"), "D = {'a', 'b'}", "D = {'a', 'c'}"),
    "a tensor": (NET.format("x * helper.W"), "import torch\nW = torch.ones(3)", "import torch\nW = torch.tensor([1., 1, 2])"),
    "an array": (NET.format("x * helper.W"), "import numpy\nW = numpy.ones(3)", "import numpy\nW = numpy.zeros(3)"),
    "a network's weights": (
        NET.format("helper.teacher(x)"), "import torch\ntorch.manual_seed(0)\nteacher = torch.nn.Linear(2, 2)",
        "import torch\ntorch.manual_seed(1)\nteacher = torch.nn.Linear(2, 2)",
    ),
    "a hook": (
        NET.format("helper.teacher(x)"), "import torch\nteacher = torch.nn.ReLU()\n",
        "import torch\nteacher = torch.nn.ReLU()\nteacher.register_forward_hook(lambda m, i, o: o * 2)",
    ),
    "an import inside a function": (
        NET.format("__import__") .replace("return __import__", "import HELPER as h\n        return h.SCALE"),
        "SCALE = 1", "SCALE = 2",
    ),
    "a name that the text does not show": (NET.format("getattr(helper, 'S' + 'CALE')"), "SCALE = 1", "SCALE = 2"),
    "a method by a name that the text does not show": (
        "class Net(helper.Base):\n    def forward(self, x): return getattr(self, 'ab'[0:1])(x)",
        "from torch import nn\nclass Base(nn.Module):\n    def a(self, x): return x",
        "from torch import nn\nclass Base(nn.Module):\n    def a(self, x): return -x",
    ),
    "a cached function": (
        NET.format("helper.f()"), "import functools\n@functools.lru_cache\ndef f(): return 1",
        "import functools\n@functools.lru_cache\ndef f(): return 2",
    ),
    "a dataclass's default": (
        NET.format("helper.C().k"), "import dataclasses\n@dataclasses.dataclass\nclass C:\n    k: int = 1",
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n    k: int = 2",
    ),
    "an enumeration": (
        NET.format("helper.E.A.value"), "import enum\nclass E(enum.Enum):\n    A = 1", "import enum\nclass E(enum.Enum):\n    A = 2",
    ),
    "a named tuple": (
        NET.format("helper.p.k"), "import collections\nP = collections.namedtuple('P', 'k')\np = P(1)",
        "import collections\nP = collections.namedtuple('P', 'k')\np = P(2)",
    ),
    "a metaclass": (
        NET.format("helper.C.k"), "class M(type):\n    k = 1\nclass C(metaclass=M): pass",
        "class M(type):\n    k = 2\nclass C(metaclass=M): pass",
    ),
    "a function's attribute": (NET.format("helper.f.k"), "def f(): pass\nf.k = 1", "def f(): pass\nf.k = 2"),
    "a function inside": (
        NET.format("helper.f(x)"), "def f(x):\n    def g(y, k=1): return y * k\n    return g(x)",
        "def f(x):\n    def g(y, k=2): return y * k\n    return g(x)",
    ),
    "a constant of another type": (NET.format("helper.f(x)"), "def f(x): return 1", "def f(x): return True"),
    "a gradient of one's own": (
        NET.format("helper.F.apply(x)"),
        "import torch\nclass F(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x): return x\n"
        "    @staticmethod\n    def backward(ctx, g): return g",
        "import torch\nclass F(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x): return x\n"
        "    @staticmethod\n    def backward(ctx, g): return g * 2",
    ),
    "a pattern": (NET.format("helper.P.match('a')"), "import re\nP = re.compile('a')", "import re\nP = re.compile('b')"),
    "a default dict": (
        NET.format("helper.D"), "import collections\nD = collections.defaultdict(int, a=1)",
        "import collections\nD = collections.defaultdict(float, a=1)",
    ),
    "a method put in its place later": (
        NET.format("helper.C().f()"), "class C:\n    def f(self): return 1\n",
        "class C:\n    def f(self): return 1\nC.f = lambda self: 2\n",
    ),
    "a bound method": (
        "Net = helper.factory.make", "class F:\n    def __init__(self, k): self.k = k\n    def make(self): return self.k\nfactory = F(1)",
        "class F:\n    def __init__(self, k): self.k = k\n    def make(self): return self.k\nfactory = F(2)",
    ),
    "an object that is called": (
        "Net = helper.factory", "class F:\n    def __init__(self, k): self.k = k\n    def __call__(self): return self.k\nfactory = F(1)",
        "class F:\n    def __init__(self, k): self.k = k\n    def __call__(self): return self.k\nfactory = F(2)",
    ),
    "a method that another method calls": (
        "class Net(helper.Base):\n    def forward(self, x): return self.one(x)",
        "from torch import nn\nclass Base(nn.Module):\n    def one(self, x): return self.two(x)\n    def two(self, x): return x",
        "from torch import nn\nclass Base(nn.Module):\n    def one(self, x): return self.two(x)\n    def two(self, x): return -x",
    ),
    "a condition's other branch": (
        NET.format("helper.f(x)"), "def f(x): return x if x is None else -x", "def f(x): return x if x is None else x",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", PAIRS)
def test_another_value_or_code_is_another_key(module, what):
    text, one, two = PAIRS[what]
    first, second, again = (digest(module(text, helper).Net) for helper in (one, two, one))
    assert first != second
    if "inside a function" not in what:  # there the module's name is part of the text
        assert first == again, "the same text in other modules, of other names"


def test_what_has_no_part_in_it_is_no_part_of_the_key(module):
    plain = NET.format("helper.act(self.a(x), 1_000)")
    helper = "def act(x, k):\n    return x * k + 2.0\n"
    variants = [
        (plain, "'''What it does.'''\n\n\n# a comment\ndef act(x: int, k: float = 1.0) -> 'int':\n    '''Doc.'''\n    # one\n"
         "    return ((x * k)\n            + 2.)\n".replace(" = 1.0", "")),
        (plain, helper + "def unrelated():\n    return 5\nOTHER = 3\n"),
        (plain + "\nfirst = 5\na = 7\nx = 9\n", helper),
        (plain.replace("def forward", "def unrelated(self):\n        return open('x')\n    def forward"), helper),
        ("FIRST = 1\n\n\n" + plain.replace("1_000", "1000"), "\n\n" + helper),
    ]  # fmt: skip
    expected = digest(module(plain, helper).Net)
    for text, other in variants:
        assert digest(module(text, other).Net) == expected


REFUSED = {
    "open('x').read()": "open",
    "__import__('os')": "__import__",
    "torch.load('x')": r"torch\.load",
    "os.environ['X']": r"os\.environ",
    "os.getenv('X')": r"os\.getenv",
    "os.listdir('.')": r"os\.listdir",
    "time.time()": r"time\.time",
    "random.SystemRandom().random()": "SystemRandom",
    "np.random.default_rng().normal()": "default_rng",
    "np.load('x')": r"np\.load",
    "pathlib.Path('x').read_text()": "read_text",
    "sys.argv": r"sys\.argv",
    "hash('x')": "hash",
    "datetime.datetime.now()": "now",
    "ctypes.CDLL('x')": "ctypes",
    "subprocess.run(['x'])": "subprocess",
    "urllib.request.urlopen('x')": "urlopen",
    "exec('x')": "exec",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_key_covers_is_named_with_its_line(module, what):
    head = "import ctypes, datetime, os, pathlib, random, subprocess, sys, time, urllib.request\nimport numpy as np\n"
    made = module(head + NET.format(f"x * {what}"))
    with pytest.raises(NotCacheableError, match=rf"Net\.forward .*{REFUSED[what]}.*users_\d+\.py"):
        record(made.Net)
    if "read_text" not in what:
        with pytest.raises(NotCacheableError, match="line 12"):
            record(made.Net)


def test_names_imported_from_modules_are_looked_through(module):
    for text in ("from os import environ as e\n", "from time import time as e\n", "from os import getenv as e\n"):
        with pytest.raises(NotCacheableError, match=r"forward uses e "):
            record(module(text + NET.format("x * e")).Net)


def test_code_that_counts_its_calls_is_refused(module):
    with pytest.raises(NotCacheableError, match="changes COUNT outside of it"):
        record(module("COUNT = 0\ndef Net():\n    global COUNT\n    COUNT += 1\n    return COUNT").Net)
    with pytest.raises(NotCacheableError, match="changes k outside of it"):
        record(
            module(
                "def make():\n    k = 0\n    def Net():\n        nonlocal k\n        k += 1\n    return Net\nNet = make()"
            ).Net
        )


def test_seeded_generators_and_logs_are_fine(module):
    text = (
        "import logging, random\nimport numpy as np\nlog = logging.getLogger('x')\n"
        "def Net():\n    log.info('x')\n    return np.random.default_rng(3).normal() + random.Random(5).random() + np.random.rand()"
    )
    assert digest(module(text).Net) == digest(module(text).Net)


def test_code_without_source_or_with_another_is_refused(tmp_path, module):
    namespace = {"nn": nn}
    exec("def net():\n    return nn.Linear(12, 6)", namespace)
    with pytest.raises(NotCacheableError, match="no source"):
        record(namespace["net"])
    made = module("def Net():\n    return 1\n")
    path = made.__file__
    with open(path, "a") as file:
        file.write("\n# a comment\n")
    assert record(made.Net), "what runs is what stands there"
    made = module("def Net():\n    return 1\n")
    with open(made.__file__, "w") as file:
        file.write("def Net():\n    return 2\n")
    with pytest.raises(NotCacheableError, match="not what runs"):
        record(made.Net)


def test_lambdas_of_one_line_are_told_apart(module):
    made = module("one, two, three = (lambda x: x), (lambda x: -x), (lambda x: x)\n")
    assert digest(made.one) != digest(made.two)
    assert digest(made.one) == digest(made.three)


def test_a_value_that_cannot_be_read_is_named(module):
    made = module("import threading\nLOCK = threading.Lock()\ndef Net():\n    with LOCK: return 1\n")
    with pytest.raises(NotCacheableError, match=r"LOCK, which Net reads \(users_\d+\.py, line 7\)"):
        record(made.Net)
    loop = [1]
    loop.append(loop)
    with pytest.raises(NotCacheableError, match="contains itself"):
        record(loop)


def test_objects_that_lead_to_each_other_are_followed_once(module):
    made = module("class A: pass\na, b = A(), A()\na.other, b.other = b, a\ndef Net(): return a\n")
    assert digest(made.Net) == digest(made.Net)


def test_packages_are_named_with_their_version_but_torch_and_numpy(module):
    import scipy

    text = str(record(module("import scipy.special\ndef Net(x):\n    return scipy.special.expit(torch.relu(x))").Net))
    assert f"scipy {scipy.__version__}" in text
    assert "torch " not in text
    assert torch.__version__ not in text


def test_a_packages_class_that_was_changed_is_noticed(module, monkeypatch):
    made = module("def Net():\n    return nn.Dropout1d(.5)\n")
    before = digest(made.Net)
    monkeypatch.setattr(nn.Dropout1d, "forward", lambda self, x: x)
    assert digest(made.Net) != before


def test_values_are_told_apart_by_type_and_content():
    values = [
        1, 1.0, True, "1", None, [1], (1,), {1}, {"1": 1}, {1: "1"}, b"1", 1j, 2**70, -(2**70), ..., range(3), float("nan"),
        torch.tensor(1), torch.tensor(1.0), torch.tensor([1]), np.float32(1), np.float64(1), np.ones(1), torch.float32,
        torch.device("cpu"), torch.Size([1]), frozenset([1]), int, print, "torch.float32", [[1]], [],
        torch.ones(2, requires_grad=True), torch.ones(2), nn.Parameter(torch.ones(2)), slice(1, 2), slice(1, 3),
    ]  # fmt: skip
    found = [digest(v) for v in values]
    alike = {(i, found.index(d)) for i, d in enumerate(found) if found.index(d) != i}
    same = [(nn.Parameter(torch.ones(2)), torch.ones(2, requires_grad=True)), (torch.Size([1]), (1,))]
    assert all(digest(a) == digest(b) for a, b in same)
    assert len(alike) == len(same), [(values[i], values[j]) for i, j in alike]
    assert digest([{"a", "b", "c"}]) == digest([{"c", "b", "a"}])


def test_keys_are_equal_in_other_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from torch import nn\nimport lotto\nimport numpy as np\nNAMES = {'a', 'b', 'c', 'd'}\n"
        "class Net(nn.Module):\n    table = {'a': nn.ReLU, 'b': len}\n    def __init__(self):\n        super().__init__()\n"
        "        self.a = nn.Linear(4, 2)\n    def forward(self, x):\n"
        "        return self.a(x) * (1.0 if 'a' in NAMES or 'b' in {'x', 'y', 'z'} else 0.0)\n"
        "x = np.zeros((8, 4), 'float32'); y = np.arange(8) % 2\n"
        "if __name__ == '__main__':\n"
        "    print(*NAMES, lotto.Job(lotto.Recipe(Net, lotto.data.Arrays(x, y, x, y), batch_size=4, steps='2it')).key)\n"
    )
    orders, keys = set(), set()
    for seed in ("0", "1"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, check=True)
        *order, key = done.stdout.split()
        orders.add(tuple(order))
        keys.add(key)
    assert len(orders) == 2, "two hash seeds, two orders"
    assert len(keys) == 1
    assert "None" not in keys


def closes_over_what_no_key_covers():
    import os
    from time import time

    class Clock(nn.Module):
        def forward(self, x):
            return x * time()

    class Environment(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = float(os.environ.get("SCALE", "1"))

    class Path(nn.Module):
        def __init__(self):
            super().__init__()
            self.name = os.path.join("a", "b")

    return Clock, Environment, Path


def test_variables_of_the_function_around_are_looked_at_as_those_of_the_module():
    clock, environment, path = closes_over_what_no_key_covers()
    for model, text in ((clock, "uses time "), (environment, "uses os.environ.get ")):
        with pytest.raises(NotCacheableError, match=text):
            record(model, "model")
    assert record(path, "model")
