"""make package: the archives are built as they are published, and each works in an environment of its own.

    python tests/distribution/check.py                                      newest dependencies, this Python
    python tests/distribution/check.py --oldest                             the oldest that pyproject.toml declares
    python tests/distribution/check.py --python python3.13 --torch system   another Python, and the torch it has

Nothing of the checkout can be reached: the environment is new, the folder is another, and no compiler is on the path.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from archives import ROOT, copied, wrong_in_sdist, wrong_in_wheel

PROGRAMS = "Scripts" if os.name == "nt" else "bin"
BOUND = re.compile(r'"([A-Za-z0-9_-]+)>=([0-9.]+)(?:;[^"]*)?"')
SMALL = "lotto imp mlp-mnist1d --steps 100it --levels 2 --replicates 2 --jobs 2 --out small"


def oldest() -> Iterator[str]:
    """The oldest of each dependency that pyproject.toml declares, but for torch, which is chosen by itself."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name, version in BOUND.findall(text.split("dependencies = [")[1].split("\n]")[0]):
        if name != "torch":
            yield f"{name}=={version}.*"


def demo() -> str:
    """What `make demo` runs."""
    (line,) = re.findall(r"^\t\$\(BIN\)/(lotto run .*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return line.replace("$(SEED)", "0").replace("lotto-results/demo", "demo")


def said(what: str, command: list[str], folder: Path, environment: Mapping[str, str]) -> str:
    """Run a command that must succeed, and say how long it took; returns what it printed."""
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{what}: exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    print(f"{time.monotonic() - began:6.0f} s  {what}", flush=True)
    return done.stdout


def archives_of(folder: Path, environment: Mapping[str, str]) -> list[Path]:
    """Wheel and source archive by `python -m build`, in an environment of its own, checked for what they hold."""
    python = str(folder / "builder" / PROGRAMS / "python")
    said("environment to build in", [sys.executable, "-m", "venv", str(folder / "builder")], folder, environment)
    said("pip install build", [python, "-m", "pip", "install", "--quiet", "build"], folder, environment)
    source = copied(folder / "source")
    said("python -m build", [python, "-m", "build", "--outdir", str(folder / "dist"), str(source)], folder, environment)
    (wheel,), (sdist,) = ((folder / "dist").glob(kind) for kind in ("*.whl", "*.tar.gz"))
    if wrong := [*wrong_in_wheel(wheel), *wrong_in_sdist(sdist)]:
        sys.exit("\n".join(wrong))
    return [wheel, sdist]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that installs and runs")
    parser.add_argument("--torch", default="torch", help="what pip is asked for; system: the one the interpreter has")
    parser.add_argument("--oldest", action="store_true", help="the oldest dependencies instead of the newest")
    parser.add_argument("--quick", action="store_true", help="without the demo, which takes minutes")
    parser.add_argument("--keep", type=Path, help="a folder that the archives are copied to once they have passed")
    parser.add_argument("--archives", nargs="*", type=Path, help="these, instead of building them")
    given = parser.parse_args()
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archives = given.archives or archives_of(folder, clean)
        for archive in archives:
            check(archive.absolute(), folder / archive.suffix.strip("."), given, clean)
        if given.keep:
            given.keep.mkdir(parents=True, exist_ok=True)
            for archive in archives:
                shutil.copy(archive, given.keep)


def check(archive: Path, folder: Path, given: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Install an archive where nothing else is, and run what the README begins with."""
    folder.mkdir()
    has = ["--system-site-packages"] if given.torch == "system" else []
    said(
        f"environment for {archive.name}", [given.python, "-m", "venv", *has, str(folder / "venv")], folder, environment
    )
    alone = {
        **environment,
        "PATH": str(folder / "venv" / PROGRAMS),
        "HOME": str(folder),
        "LOTTO_STORE": str(folder / "store"),
    }
    alone = {**alone, "XDG_CACHE_HOME": str(folder / "cache"), "MPLCONFIGDIR": str(folder / "cache")}
    install = ["python", "-m", "pip", "install", "--quiet", "--no-cache-dir"]
    first = [] if given.torch == "system" else [given.torch]
    if given.oldest:
        (folder / "oldest.txt").write_text("\n".join(oldest()), encoding="utf-8")
        install += ["-c", str(folder / "oldest.txt")]
    for what in [*first, str(archive)]:
        said(f"pip install {Path(what).name}", in_venv(folder, [*install, what]), folder, alone)
    for command in ("lotto --version", SMALL, *([] if given.quick else [demo()])):
        out = said(command, in_venv(folder, shlex.split(command)), folder, alone)
        if command == "lotto --version":
            print(" " * 10 + out.strip())
    used = "import sys, torch, numpy, lotto; print(sys.version.split()[0], torch.__version__, numpy.__version__, lotto.__file__)"
    print(" " * 10 + said("what was used", in_venv(folder, ["python", "-c", used]), folder, alone).strip())


def in_venv(folder: Path, command: list[str]) -> list[str]:
    """A command of the environment."""
    return [str(folder / "venv" / PROGRAMS / command[0]), *command[1:]]


if __name__ == "__main__":
    main()
