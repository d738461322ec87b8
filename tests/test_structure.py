"""The architecture holds: imports run one way, and every module can be imported first."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import interpreter
import lotto

ROOT = Path(lotto.__file__).parent
MODULES = sorted(
    ".".join(("lotto", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
)

ORDER = [
    "core",
    "models",
    "data",
    "pruning",
    "recipe",
    "training",
    "execution",
    "landscape",
    "lottery",
    "integrations",
    "inference",
    "experiments",
    "report",
    "papers",
    "benchmarks",
    "cli",
    "__main__",
]
"""The packages from the bottom up; each imports only from itself and from those before it in this list."""


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports_of(module: str) -> set[str]:
    """Modules of ours that a module imports when it is imported, and those that its functions import."""
    path = ROOT.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text())
    # What is under TYPE_CHECKING is not imported when the program runs.
    typed = {id(n) for block in ast.walk(tree) if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
             for n in ast.walk(block)}  # fmt: skip
    found = set()
    for node in ast.walk(tree):
        if id(node) in typed:
            continue
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:  # a name may be a module
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("lotto.")}


@pytest.mark.parametrize("module", [m for m in MODULES if part_of(m)])
def test_imports_run_one_way(module):
    ranks = {part: rank for rank, part in enumerate(ORDER)}
    for name in imports_of(module):
        assert ranks[part_of(name)] <= ranks[part_of(module)], f"{module} imports {name}"


def packages_above(module: str) -> set[str]:
    parts = module.split(".")
    return {".".join(parts[:i]) for i in range(2, len(parts))}


def test_no_modules_import_each_other_in_a_circle():
    # Nor through the face of a package, which Python runs before any module in it. So whichever module is imported
    # first, what it imports is never half there, as long as it asks no package that it is in itself.
    left = {}
    for module in MODULES:
        own, asked = packages_above(module) | {module}, imports_of(module) & set(MODULES)
        assert not asked & own, f"{module} imports from the package that it is in"
        left[module] = {needed for name in asked for needed in {name, *packages_above(name)}} - own
    while free := [m for m, needed in left.items() if not needed & set(left)]:
        for module in free:
            del left[module]
    assert not left, f"circles among {sorted(left)}"


def test_the_rooms_are_few():
    rooms = {part_of(m) for m in MODULES} - {"", "__main__"}
    assert rooms == set(ORDER) - {"__main__"}
    assert len(rooms) <= 18


def test_models_import_nothing_of_lotto_but_its_errors():
    for path in (ROOT / "models").glob("*.py"):
        text = path.read_text()
        lines = [line for line in text.splitlines() if line.startswith(("from lotto", "import lotto"))]
        allowed = ("from lotto.core.errors", "from lotto.models")
        assert all(line.startswith(allowed) for line in lines), path


@pytest.mark.extras
def test_every_package_can_be_imported_first_in_a_clean_interpreter():
    # Python imports the package before any module of it, so forks of an interpreter that has only done that are
    # as clean as new ones, and quicker. Modules need no such test where there are no circles.
    packages = [m for m in MODULES if ROOT.joinpath(*m.split(".")[1:]).is_dir()]
    assert len(packages) > 15
    script = f"""
import importlib, os, sys
import torch, pandas, matplotlib.figure, rich, tyro, jinja2
import lotto
assert not any(name in sys.modules for name in ("lotto.cli", "lotto.report", "lotto.papers", "lotto.benchmarks"))
failed = []
for name in {packages!r}:
    pid = os.fork()
    if pid == 0:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(name, repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    failed += [name] * (os.waitpid(pid, 0)[1] != 0)
sys.exit(len(failed))
"""
    done = interpreter.run(script)
    assert done.returncode == 0, done.stdout + done.stderr


def test_optional_packages_are_not_imported_unless_asked_for():
    script = (
        "import sys, lotto; print([m for m in ('torchvision', 'sklearn', 'ray', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_public_names():
    for name in lotto.__all__:
        assert getattr(lotto, name) is not None
    assert callable(lotto.imp)
    assert callable(lotto.train)
    assert set(lotto.__all__) <= set(dir(lotto))


@pytest.mark.parametrize("package", ["lotto", "lotto.execution", "lotto.recipe"])
def test_names_that_are_imported_at_their_first_use_are_those_that_type_checkers_see(package):
    face = import_module(package)
    tree = ast.parse(Path(str(face.__file__)).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {a.asname or a.name: f"{n.module}.{a.name}" for n in block.body for a in n.names}
    assert set(seen) == set(face.__all__) == set(dir(face))
    homes = {name: (full, "") if full in MODULES else full.rpartition(".")[::2] for name, full in seen.items()}
    # In a process of its own: whoever imports `lotto.engine` gets a module that looks names up in that one.
    script = f"""
from importlib import import_module
face = import_module({package!r})
for name, (module, inner) in {homes!r}.items():
    home = import_module(module)
    assert getattr(face, name) is (getattr(home, inner) if inner else home), name
"""
    done = interpreter.run(script)
    assert done.returncode == 0, done.stderr


def test_no_module_of_ours_takes_public_names_from_the_top():
    # They are imported all at once at the first use: a module on the way would be waited for by itself.
    for path in ROOT.rglob("*.py"):
        if path != ROOT / "__init__.py":
            for name in re.findall(r"^\s*from lotto import (\w+)", path.read_text(), re.MULTILINE):
                assert name not in lotto.__all__, path


def test_only_results_reach_up_to_the_report_and_only_by_its_name():
    reaching = [path for path in ROOT.rglob("*.py") if 'import_module(f"lotto.' in path.read_text()]
    assert {path.relative_to(ROOT).as_posix() for path in reaching} <= {
        "lottery/result.py",
        "__init__.py",
        "cli/commands.py",
    }


def test_no_pickle_is_read_from_disk():
    for path in ROOT.rglob("*.py"):
        text = path.read_text()
        assert "torch.load" not in text, path
        assert "pickle.load" not in text, path
