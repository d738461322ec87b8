"""A process that compiles kernels computes the same bits as one that reads them from disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lotto.core.jit import can_compile

SOURCE = Path(__file__).parents[2] / "src"
PROGRAM = """
import hashlib, torch, lotto
from lotto.landscape import curvature
from lotto.lottery.scoring import NetworkMeasurements
from lotto.training.job import Job
from lotto.training.loop import train
torch.set_num_threads(1)
x = torch.randn(320, 1, 16, generator=torch.Generator().manual_seed(0))
y = torch.randint(0, 4, (320,), generator=torch.Generator().manual_seed(1))
data = lotto.data.Arrays(x[:256], y[:256], x[256:], y[256:])
recipe = lotto.Recipe("resnet-8-w4", data, lotto.SGD(0.1, momentum=0.9), batch_size=64, steps="6it")
mask = lotto.pruning.prune(recipe.initial(0), lotto.pruning.masks.ones(recipe), density=0.3)
runs = [train(Job(recipe)), train(Job(recipe, mask=mask))]
product = NetworkMeasurements(recipe, runs[1].weights, mask).gradients()
network = recipe.build().eval()
network.load_state_dict(dict(runs[1].weights))
outputs = lotto.inference.sparse_network(network, x[:8])(x[:8]).detach()
for found in (*(r.weights for r in runs), product, {"outputs": outputs}):
    print(hashlib.sha1(b"".join(t.contiguous().numpy().tobytes() for t in found.values())).hexdigest())
"""


@pytest.mark.extras
@pytest.mark.skipif(not can_compile(), reason="numba is not installed")
def test_compiled_here_and_read_from_disk_are_the_same(tmp_path):
    place = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kernels"), "PYTHONPATH": str(SOURCE)}
    said = [
        subprocess.run([sys.executable, "-c", PROGRAM], env=place, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert said[0] == said[1]
    assert any((tmp_path / "kernels").rglob("*.nbc"))
