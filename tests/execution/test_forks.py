"""Workers that are forked from a template: only where that is safe, with the bits of others, and gone with their parent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import interpreter
import lotto

if not Path("/proc/self/task").is_dir():
    pytest.skip("counts the threads in /proc", allow_module_level=True)

TESTS = Path(__file__).parents[1]
MORE = pytest.mark.extras
"""Each of these starts a Python and imports all that the command line does."""
PATHS = os.pathsep.join([str(TESTS), str(Path(lotto.__file__).parents[1])])


START = (
    "import os, signal, threading, time\nfrom lotto.execution import forks\nfrom lotto.execution.forks import warmed\n"
)


def script(code: str, **environment: str) -> str:
    """What a program printed that begins with the imports of the command line."""
    done = interpreter.run(START + code, environment={**os.environ, "PYTHONPATH": PATHS, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@MORE
@pytest.mark.parametrize("threads", ["1", "4"])
def test_what_the_commands_import_starts_no_thread_that_a_fork_would_lose(threads):
    code = """
import numba, scipy.linalg, matplotlib.figure
import lotto.papers, lotto.execution.factory, lotto.execution.worker, lotto.lottery.search, lotto.report.save
import torch
from lotto.cli.commands import COMMANDS, command
for name in COMMANDS:
    command(name)
template = warmed()
print(len(os.listdir("/proc/self/task")), threading.active_count(), torch.cuda.is_initialized(), template is not None)
print(sorted(os.listdir(f"/proc/{template._pid}/task")) == [str(template._pid)])
"""
    done = subprocess.run(  # an interpreter of its own, which torch and BLAS read their threads in
        [sys.executable, "-c", START + code],
        env={**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout == "1 1 False True\nTrue\n", done.stderr


@pytest.mark.parametrize(
    "work",
    [
        pytest.param("import torch; torch.set_num_threads(2); torch.ones(1000, 1000).exp().sum()", marks=MORE),
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        pytest.param("import torch; torch.cuda.is_initialized = lambda: True", marks=MORE),
    ],
    ids=["openmp", "a thread", "cuda"],
)
def test_a_process_that_has_threads_is_no_template_and_leaves_none(work):
    code = f"""
{work}
assert warmed() is None
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("no child")
"""
    assert script(code, OMP_NUM_THREADS="2") == "no child"


def test_forked_workers_give_the_bits_of_this_process_and_find_its_surroundings(tmp_path):
    code = """
import sys
template = warmed()
import torch
torch.set_num_threads(2)
torch.ones(1000, 1000).exp().sum()  # this process may compute now
assert len(os.listdir("/proc/self/task")) > 1
from conftest import same_tensors, small_recipe
from lotto import Job, Store
from lotto.execution.processes import Processes
from lotto.execution.serial import Serial
os.chdir(sys.path[0] or ".")
recipe = small_recipe()
jobs = [Job(recipe, seed, keep=(3,)) for seed in range(3)]
engine = Processes(Store("b"), 2)
engine.template = template
for one, other in zip(engine.run(jobs), Serial(Store("a")).run(jobs), strict=True):
    assert one.key == other.key
    assert same_tensors(one.weights, other.weights) and same_tensors(one.at(3), other.at(3))
    assert one.history == other.history and one.arithmetic == other.arithmetic
os.environ["NEW"] = "here"
worker = template.start("lotto.execution.worker", 1)
print(worker.submit(os.getppid).result() == template._pid, worker.submit(os.getenv, "NEW").result())
print(worker.submit(os.getcwd).result() == os.getcwd(), worker.submit(torch.get_num_threads).result())
worker.shutdown()
"""
    (tmp_path / "sub").mkdir()
    assert script(
        f"os.chdir({str(tmp_path)!r})\n" + code.replace('os.chdir(sys.path[0] or ".")', 'os.chdir("sub")')
    ) == ("True here\nTrue 1")


@MORE
def test_what_a_worker_raises_comes_back_and_a_dead_one_is_noticed():
    code = """
import math, pickle
from concurrent.futures.process import BrokenProcessPool
template = warmed()
worker = template.start("lotto.execution.worker", 1)
error = worker.submit(math.sqrt, -1).exception()
print(type(error).__name__, "Traceback" in str(error.__cause__))
class Unreadable:
    def __reduce__(self):
        return os.listdir, ("/nowhere",)
error = worker.submit(print, Unreadable()).exception()
print(type(error).__name__, "un-serialize" in str(error), "FileNotFoundError" in str(error.__cause__))
error = worker.submit(eval, "(_ for _ in ()).throw(ValueError(__import__('threading').Lock()))").exception()
print(type(error).__name__, str(error)[:10])
print(worker.submit(len, "abc").result())
error = worker.submit(os._exit, 1).exception()
print(type(error).__name__)
worker.shutdown()
worker = template.start("lotto.execution.worker", 1)
os.kill(worker.pid, signal.SIGKILL)
time.sleep(0.5)
try:
    worker.submit(len, "abc")
except BrokenProcessPool as error:
    print("noticed")
worker.shutdown()
os.kill(template._pid, signal.SIGKILL)
time.sleep(0.5)
print(template.start("lotto.execution.worker", 1))
"""
    assert script(code).splitlines() == [
        "ValueError True", "BrokenProcessPool True True", "RuntimeError ValueError", "3", "BrokenProcessPool", "noticed",
        "None",
    ]  # fmt: skip


@MORE
def test_a_worker_that_dies_is_forked_anew_and_without_a_template_it_is_a_new_interpreter(tmp_path):
    code = f"""
import pathlib, sys
template = warmed()
sys.path.insert(0, {str(TESTS)!r})
sys.path.insert(0, {str(TESTS / "execution")!r})
from test_engine import Deadly
from conftest import same_tensors, small_recipe
from lotto import Job, Store
from lotto.execution.processes import Processes
from lotto.execution.serial import Serial
lives = pathlib.Path(os.environ["LOTTO_TEST_LIVES"])
recipe = small_recipe(model=Deadly, init="module", steps="8it")
lives.write_text("0")
expected = Serial(Store({str(tmp_path / "a")!r})).run([Job(recipe)])[0]
for folder, end in (("b", False), ("c", True)):
    lives.write_text("1")
    engine = Processes(Store({str(tmp_path)!r} + "/" + folder), 1)
    engine.template = template
    if end:
        os.kill(template._pid, signal.SIGKILL)
    run = engine.run([Job(recipe)])[0]
    print(lives.read_text(), same_tensors(run.weights, expected.weights))
"""
    assert script(code, LOTTO_TEST_LIVES=str(tmp_path / "lives")) == "0 True\n0 True"


@MORE
def test_a_process_with_threads_has_one_clean_template_beside_it_for_all_its_engines(tmp_path):
    code = f"""
import sys, torch
torch.set_num_threads(2)
torch.ones(1000, 1000).exp().sum()
assert warmed() is None and len(os.listdir("/proc/self/task")) > 1
from conftest import same_tensors, small_recipe
from lotto import Job, Store
from lotto.execution.processes import Processes
from lotto.execution.serial import Serial
os.chdir({str(tmp_path)!r})
jobs = [Job(small_recipe(), seed) for seed in range(2)]
expected = Serial(Store("expected")).run(jobs)
engines = [Processes(Store(f"store-{{number}}"), 2) for number in range(2)]
for engine in engines:
    for run, other in zip(engine.run(jobs), expected, strict=True):
        assert same_tensors(run.weights, other.weights) and run.arithmetic == other.arithmetic
template = forks.beside()
print([engine.template is template for engine in engines], flush=True)
if os.fork() == 0:
    print(template.start("lotto.execution.worker", 1), flush=True)
    os._exit(0)
os.wait()
"""
    assert script(code, OMP_NUM_THREADS="2") == "[True, True]\nNone"


@MORE
@pytest.mark.parametrize("victim", ["os.getpid()", "template._pid"])
@pytest.mark.parametrize("made", ["warmed", "beside"])
def test_forked_workers_leave_with_their_parent_and_with_their_template(made, victim, tmp_path):
    code = f"""
import threading
from lotto.execution.forks import {made}
import os, signal, time
template = {made}()
workers = [template.start("lotto.execution.worker", 1) for _ in range(2)]
for worker in workers:
    worker.submit(time.sleep, 60)
print(*[worker.pid for worker in workers], template._pid, flush=True)
os.kill({victim}, signal.SIGKILL)
os.waitpid(template._pid, 0)
time.sleep(1)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PATHS}, stdout=subprocess.PIPE, text=True
    )
    pids = process.stdout.readline().split()
    assert len(pids) == 3
    deadline = time.monotonic() + 20
    while alive := [pid for pid in pids if running(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)
    process.communicate(timeout=60)


def running(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@MORE
def test_signals_to_the_whole_group_are_the_parent_s_to_answer():
    code = """
template = warmed()
worker = template.start("lotto.execution.worker", 1)
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, lambda *_: None)
for number in (signal.SIGINT, signal.SIGHUP):
    os.kill(template._pid, number)
    os.kill(worker.pid, number)
os.kill(template._pid, signal.SIGTERM)
print(worker.submit(len, "abc").result())
worker.shutdown()
print(template.start("lotto.execution.worker", 1).submit(len, "ab").result())
"""
    assert script(code) == "3\n2"


@pytest.mark.parametrize(("jobs", "forked"), [("2", True), pytest.param("1", False, marks=MORE)])
def test_the_command_line_forks_its_workers(jobs, forked, tmp_path):
    code = f"""
from lotto.cli.main import main
start = forks.Template.start
def counted(self, *arguments):
    print("forked", flush=True)
    return start(self, *arguments)
forks.Template.start = counted
main(["imp", "mlp-mnist1d", "--steps", "20it", "--levels", "1", "--replicates", "2", "--controls", "none", "--jobs",
      "{jobs}", "--out", {str(tmp_path / "out")!r}, "--store", {str(tmp_path / "store")!r}])
"""
    out = script(code)
    assert "4 computed" in out
    assert ("forked" in out) == forked


def test_a_template_that_still_imports_leaves_with_its_parent(tmp_path):
    (tmp_path / "torch.py").write_text("import time; time.sleep(60)")  # what the template imports takes a minute
    code = f"""
import os, signal, sys
from lotto.execution.forks import beside
sys.path.insert(0, {str(tmp_path)!r})
print(beside()._pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    said = tmp_path / "said"  # a pipe would wait for the template, too
    with said.open("w") as out:
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PATHS}, stdout=out, check=False)
    pid = said.read_text().strip()
    assert pid
    deadline = time.monotonic() + 20
    while running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
