"""Pandas without the thread of pyarrow, which others may have installed."""

from __future__ import annotations

import os

from interpreter import run

FAKE = """
import threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
__version__ = "99.0.0"
"""
CODE = """
import sys
for name in [n for n in sys.modules if n.partition(".")[0] == "pandas"]:
    del sys.modules[name]
from lotto.core.one_thread import import_pandas
import_pandas()
import os
threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
print("pandas" in sys.modules, "pyarrow" in sys.modules, threads)
import pyarrow
print(pyarrow.__version__)
"""


def test_pandas_is_imported_alone_and_pyarrow_is_there_for_whoever_asks(tmp_path):
    (tmp_path / "pyarrow.py").write_text(FAKE)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    found = run(CODE, environment={**os.environ, "PYTHONPATH": paths})
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["True", "False", "1", "99.0.0"]
