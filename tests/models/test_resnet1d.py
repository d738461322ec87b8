import numpy as np
import torch

import lotto
from lotto import models
from lotto.pruning import masks


def test_the_network_has_the_published_shape():
    network = models.build("resnet-20-w8", (40,), 10)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv1d)]
    main = [m for m in convolutions if m.kernel_size != (1,)]
    assert len(main) + 1 == 20
    assert main[0].kernel_size == (5,)
    assert [m.out_channels for m in main] == [8] * 7 + [16] * 6 + [32] * 6
    assert [m.stride[0] for m in main].count(2) == 2
    assert network(torch.zeros(3, 40)).shape == (3, 10)
    assert torch.equal(network.eval()(torch.ones(3, 40)), network(torch.ones(3, 1, 40)))


def test_presets_are_the_papers_three_rows():
    made_up = lotto.data.Arrays(np.zeros((200, 40)), np.arange(200) % 10, np.zeros((10, 40)), np.zeros(10, int))
    standard, low, warm = (lotto.recipes.get(f"resnet20-mnist1d{row}", data=made_up) for row in ("", "-low", "-warmup"))
    assert standard.learning_rate(0) == standard.learning_rate(499) == 0.2
    assert [round(standard.learning_rate(s), 6) for s in (500, 750)] == [0.02, 0.002]
    assert (low.learning_rate(0), low.learning_rate(500)) == (0.02, 0.002)
    assert warm.learning_rate(0) < 0.002 < warm.learning_rate(199) <= 0.2 == warm.learning_rate(300)
    assert masks.size(masks.ones(standard)) == 23_272
    assert standard.total == 1000
    assert standard.tolerance is None  # 0.2 points
