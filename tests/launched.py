"""Processes as `torchrun` starts them: each knows its rank, how many there are, and where the first one is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import lotto

TESTS = Path(__file__).parent
PATHS = os.pathsep.join(
    [str(TESTS), str(TESTS / "execution"), str(TESTS / "training"), str(Path(lotto.__file__).parents[1])]
)


def environment(rank: int, size: int, port: int, **more: str) -> dict[str, str]:
    """What `torchrun` would put into a process's environment."""
    said = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1", **{n: str(v) for n, v in said.items()}, **more}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start(size: int, *arguments: str, **more: str) -> list[subprocess.Popen[str]]:
    """Start as many processes of one Python command line."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(rank, size, port, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]


def ended(processes: list[subprocess.Popen[str]], seconds: float = 240.0) -> list[tuple[int, str]]:
    """The exit code of each, and what it has written."""
    try:
        texts = [process.communicate(timeout=seconds)[0] for process in processes]
        return [(process.returncode, text) for process, text in zip(processes, texts, strict=True)]
    finally:
        for process in processes:
            process.kill()
            process.wait()
