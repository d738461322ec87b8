"""Our optimizers against torch's classes, step by step."""

from __future__ import annotations

import pickle
import re

import pytest
import torch

import interpreter
import lotto
from lotto import SGD, Adam, AdamW, RMSprop
from lotto.core.errors import UsageError
from lotto.recipe.optimizers import OptimizerState

PAIRS = [
    (SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    (
        SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    ),
    (Adam(0.01, weight_decay=0.1), lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1)),
    (
        AdamW(0.01, weight_decay=0.1, beta1=0.8),
        lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, betas=(0.8, 0.999)),
    ),
    (RMSprop(0.01), lambda p: torch.optim.RMSprop(p, 0.01)),
    (
        RMSprop(0.01, weight_decay=0.1, alpha=0.9, momentum=0.5),
        lambda p: torch.optim.RMSprop(p, 0.01, weight_decay=0.1, alpha=0.9, momentum=0.5),
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda v: repr(v) if not callable(v) else "")
def test_steps_are_those_of_torch(ours, theirs):
    generator = torch.Generator().manual_seed(0)
    start = {"a": torch.randn(4, 3, generator=generator), "b": torch.randn(5, generator=generator)}
    mine = {n: t.double().clone() for n, t in start.items()}
    reference = [t.double().clone().requires_grad_() for t in start.values()]
    state, optimizer = OptimizerState(ours, mine), theirs(reference)
    for step in range(6):
        rate = ours.lr / (1 + step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        for i, (name, other) in enumerate(zip(mine, reference, strict=True)):
            # The second parameter has no gradient at first.
            gradient = None if i and step < 2 else torch.randn(other.shape, generator=generator).double()
            mine[name].grad, other.grad = gradient, gradient
        state.step(rate)
        optimizer.step()
        for name, other in zip(mine, reference, strict=True):
            torch.testing.assert_close(mine[name], other.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SGD(0.1, nesterov=True), r"Momentum is 0 or more, and greater than 0 for Nesterov's; got 0.0"),
        (lambda: SGD(0.1, momentum=-1.0), r"Momentum is 0 or more"),
        (lambda: Adam(0.1, beta1=1.5), r"beta1 and beta2 are at least 0 and less than 1; got 1.5, 0.999"),
        (lambda: RMSprop(0.1, alpha=1.0), r"alpha is at least 0 and less than 1"),
    ],
)
def test_what_torch_would_refuse_is_told_at_once(make, text):
    with pytest.raises(UsageError, match=text):
        make()


def test_training_does_not_import_torchs_compiler():
    code = (
        "import sys, lotto, numpy as np\n"
        "x = np.random.default_rng(0).normal(size=(40, 4)).astype('float32')\n"
        "data = lotto.data.Arrays(x, np.arange(40) % 2, x, np.arange(40) % 2)\n"
        "recipe = lotto.Recipe(model='mlp-8', data=data, optimizer=lotto.SGD(0.1), batch_size=10, steps='2it')\n"
        "from lotto.training import train\n"
        "train(lotto.Job(recipe))\n"
        "train(lotto.Job(recipe.replace(loss='mse', error='mse')))\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    assert interpreter.run(code).returncode == 0


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SGD(0.1, 0.9, 1e-4), "SGD takes lr and momentum by position and the rest by name (weight_decay=..."),
        (
            lambda: Adam(0.1, 0.9),
            "Adam takes lr by position and the rest by name (weight_decay=..., groups=..., beta1=...",
        ),
        (lambda: AdamW(0.1, 0.9), "AdamW takes lr by position"),
        (lambda: RMSprop(0.1, 0.9), "RMSprop takes lr by position"),
        (lambda: lotto.MultiStep(("8it",), 0.1, "2it"), "MultiStep takes milestones and gamma by position"),
        (lambda: lotto.Cosine(10), "Cosine takes nothing by position and the rest by name (warmup=..., end=...)"),
        (lambda: lotto.Linear("3it"), "Linear takes nothing by position"),
        (lambda: lotto.MultiStep(("8it", "4it")), "Milestones must increase"),
        (lambda: lotto.MultiStep(("8ep", "4ep")), "Milestones must increase"),
    ],
)
def test_what_could_be_taken_for_something_else_is_given_by_name(make, text):
    with pytest.raises(UsageError, match=re.escape(text)):
        make()


def test_momentum_and_milestones_come_second_and_first():
    assert SGD(0.1, 0.9) == SGD(0.1, momentum=0.9)
    assert SGD(0.1, 0.9).weight_decay == 0
    assert lotto.MultiStep("8it", 0.5) == lotto.MultiStep(milestones=("8it",), gamma=0.5)
    assert lotto.MultiStep("8it, 2ep") == lotto.MultiStep(("8it", "2ep"))
    assert pickle.loads(pickle.dumps(SGD(0.1, 0.9))) == SGD(0.1, 0.9)
    assert repr(SGD(0.1, 0.9)) == "SGD(lr=0.1, weight_decay=0.0, momentum=0.9, nesterov=False)"


def test_a_subclass_of_a_user_s_may_take_what_it_likes():
    class Mine(SGD):
        def __init__(self, one, two, three, four):
            super().__init__(one, two)

    assert Mine(0.1, 0.2, 3, 4).momentum == 0.2
