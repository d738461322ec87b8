"""Python programs as processes of their own, forked from one that has imported torch and nothing of lotto.

A new interpreter takes two seconds to import torch. Where that is not what a test looks at, a fork of an interpreter
that has only done this is as clean: one thread, no module of lotto, and the environment and arguments it is given.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache

SERVER = """
import json, os, sys
sys.modules["pyarrow"] = None  # where it is installed pandas would import it, which starts a thread
import numba, numpy, pandas, scipy, torch
del sys.modules["pyarrow"]
assert not any(name.partition(".")[0] == "lotto" for name in sys.modules)
assert not os.path.isdir("/proc/self/task") or len(os.listdir("/proc/self/task")) == 1
own = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
usual = [path for path in sys.path if path and path not in own]
print("ready", flush=True)
for line in sys.stdin:
    given = json.loads(line)
    if not (child := os.fork()):
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
for number, (path, flags) in enumerate([(os.devnull, os.O_RDONLY), *((path, os.O_WRONLY) for path in given["written"])]):
    opened = os.open(path, flags)
    os.dup2(opened, number)
    os.close(opened)
sys.stdin, sys.stdout, sys.stderr = (open(number, mode, closefd=False) for number, mode in enumerate("rww"))
os.environ.clear()
os.environ.update(given["environment"])
sys.path[:] = ["", *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path), *usual]
sys.argv[:] = ["-c", *given["arguments"]]
exec(compile(given["code"], "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
"""


@cache
def server() -> subprocess.Popen[str]:
    """The process that the others are forked from; it ends when this one does, as its input is closed then."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    started = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        # pandas imports pyarrow where it is installed, whose allocator would start a thread.
        env={**os.environ, **one, "JE_ARROW_MALLOC_CONF": "background_thread:false"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def run(
    code: str, *arguments: str, environment: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True)` gives.

    Args:
        code: the program; what it defines cannot be unpickled by name elsewhere.
        arguments: of its `sys.argv`.
        environment: this one's by default; BLAS and OpenMP have read theirs, which is one thread.
        timeout: in seconds; the program is ended after them, and the server with it.
    """
    from_server = server()
    assert from_server.stdin is not None
    assert from_server.stdout is not None
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        given = {
            "code": code, "arguments": arguments, "environment": dict(environment or os.environ),
            "written": [out.name, err.name],
        }  # fmt: skip
        print(json.dumps(given), file=from_server.stdin, flush=True)
        ended = False
        try:
            ended = bool(select.select([from_server.stdout], [], [], timeout)[0])
        finally:
            if not ended:  # also at Ctrl-C, which does not reach another session
                os.killpg(from_server.pid, signal.SIGKILL)
                from_server.wait()
                server.cache_clear()
        if not ended:
            raise subprocess.TimeoutExpired(code, timeout, out.read(), err.read())
        return subprocess.CompletedProcess(
            [code, *arguments], int(from_server.stdout.readline()), out.read(), err.read()
        )
