"""A user's own loop on a sparse network: zeros, steps and snapshots, whatever the loop does."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import lotto
from conftest import same_tensors, small_recipe
from lotto.core.errors import UsageError
from lotto.pruning import masks


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 6))


def data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(60, 12, generator=generator), torch.randint(6, (60,), generator=generator)


def steps(model, optimizer, count, clip=None, first=0):
    x, y = data()
    for step in range(first, first + count):
        at = slice(step * 20 % 60, step * 20 % 60 + 20)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[at]), y[at]).backward()
        if clip is not None:
            clip.append(nn.utils.clip_grad_norm_(model.parameters(), 0.1))
        optimizer.step()


def half(model):
    return lotto.pruning.prune(model.state_dict(), masks.ones(model), 0.5)


def pruned_values(model, mask):
    named = dict(model.named_parameters())
    return torch.cat([named[name].detach()[~keep] for name, keep in mask.items()])


OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_pruned_weights_and_their_moments_are_zero_and_the_others_are_those_of_masked_gradients(kind):
    model = network()
    mask = half(model)
    expected = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in expected.named_parameters():
            if name in mask:
                parameter *= mask[name]
    by_hand = OPTIMIZERS[kind](expected.parameters())
    x, y = data()
    for step in range(5):
        by_hand.zero_grad()
        nn.functional.cross_entropy(expected(x[step % 3 * 20 :][:20]), y[step % 3 * 20 :][:20]).backward()
        for name, parameter in expected.named_parameters():
            if name in mask:
                parameter.grad *= mask[name]
        by_hand.step()
    optimizer = OPTIMIZERS[kind](model.parameters())
    with lotto.sparse(model, mask) as loop:
        steps(model, optimizer, 5)
    assert not pruned_values(model, mask).any()
    for name, parameter in model.named_parameters():
        for tensor in optimizer.state[parameter].values():
            if name in mask and isinstance(tensor, torch.Tensor) and tensor.shape == parameter.shape:
                assert not tensor[~mask[name]].any()
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert loop.steps == 5


def test_it_is_the_training_of_a_recipe_step_by_step():
    """The same network, batches and optimizer as a recipe's job, which keeps the same steps."""
    recipe = small_recipe(schedule=lotto.Constant(), steps="12it")
    mask = lotto.pruning.prune(recipe.initial(0), masks.ones(recipe), 0.6)
    run = lotto.train(recipe, mask=mask, start=recipe.initial(0), keep=["4it"])
    model = recipe.build()
    model.load_state_dict(recipe.initial(0))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    with lotto.sparse(model, mask, keep=["4it", 12]) as loop:
        for x, y in recipe.arrays.batches(0, 0, 12, recipe.batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    for step in (4, 12):
        for name, tensor in run.at(step).items():
            torch.testing.assert_close(loop.kept[step][name], tensor, rtol=1e-4, atol=1e-6)


def test_snapshots_are_copies_of_the_state_after_a_step_and_begin_at_the_rewind_point():
    model = network()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with lotto.sparse(model, keep=[0, "2it"]) as loop:
        steps(model, optimizer, 2)
        after_two = copy.deepcopy(model.state_dict())
        steps(model, optimizer, 3, first=2)
    assert same_tensors(loop.kept[0], before)
    assert same_tensors(loop.kept[2], after_two)
    assert sorted(loop.kept) == [0, 2]
    mask = half(model)
    model.load_state_dict(loop.kept[2])
    with lotto.sparse(model, mask, start_step=2, keep=[4]) as again:
        steps(model, torch.optim.SGD(model.parameters(), 0.1), 3, first=2)
    assert again.steps == 5
    assert sorted(again.kept) == [4]
    assert "5 steps" in repr(again)


def test_clipping_sees_the_subnetwork_alone():
    model = network()
    mask, norms = half(model), []
    with lotto.sparse(model, mask):
        x, y = data()
        nn.functional.cross_entropy(model(x[:20]), y[:20]).backward()
        own = torch.cat([p.grad[mask[n]] if n in mask else p.grad.flatten() for n, p in model.named_parameters()])
        model.zero_grad()
        steps(model, torch.optim.SGD(model.parameters(), 0.1), 1, clip=norms)
    assert norms[0] == pytest.approx(float(own.norm()), rel=1e-5)


def test_only_what_an_optimizer_moved_is_set_to_zero_and_the_main_one_counts():
    """Two networks and two optimizers, as of a GAN: the step of one comes between forward and backward of the other."""
    generator, critic = nn.Linear(4, 12), nn.Linear(12, 1)
    both = nn.ModuleDict({"generator": generator, "critic": critic})
    mask = half(both)
    first, second = torch.optim.Adam(generator.parameters()), torch.optim.Adam(critic.parameters())
    with lotto.sparse(both, mask, main=second) as loop:
        for _ in range(3):
            made = generator(torch.ones(2, 4))
            loss = critic(made).sum()
            second.zero_grad()
            (-critic(made.detach()).sum()).backward()
            first.zero_grad()
            made.sum().backward()
            first.step()
            first.step()
            second.step()
            del loss
    assert loop.steps == 3
    assert not pruned_values(both, mask).any()


def test_a_step_of_one_optimizer_does_not_break_the_graph_of_another():
    """The backward of two layers reads the second one's weights, which must be as the forward saw them."""
    torch.manual_seed(0)
    generator, critic = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 6)), nn.Linear(6, 1)
    both = nn.ModuleDict({"generator": generator, "critic": critic})
    mask = half(both)
    first, second = torch.optim.Adam(generator.parameters()), torch.optim.Adam(critic.parameters())
    with lotto.sparse(both, mask, main=first) as loop:
        for _ in range(2):
            first.zero_grad()
            made = generator(torch.ones(2, 4))
            second.zero_grad()
            critic(made.detach()).sum().backward()
            second.step()  # between the forward and the backward of the other
            made.square().sum().backward()
            first.step()
    assert loop.steps == 2
    assert not pruned_values(both, mask).any()


def test_hooks_go_with_the_loop_also_when_it_fails():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(RuntimeError, match="mine"), lotto.sparse(model, half(model)) as loop:
        raise RuntimeError("mine")
    steps(model, optimizer, 1)
    assert loop.steps == 0
    assert pruned_values(model, loop.mask).any(), "dense again"


def test_shared_weights_are_cut_under_all_their_names():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    model = Tied()
    mask = half(model)
    with lotto.sparse(model, mask):
        optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.1)
        model(torch.ones(1, 5)).sum().backward()
        optimizer.step()
    assert not model.b.weight[~mask["a.weight"]].any()


def test_weights_that_are_loaded_inside_are_noticed_and_zero_puts_them_right():
    model = network()
    mask, dense = half(model), copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    words = r"Pruned weights of '0\.weight' are not 0 before a step.*call \.zero\(\)"
    with lotto.sparse(model, mask) as loop:
        model.load_state_dict(dense)
        with pytest.raises(UsageError, match=words):
            steps(model, optimizer, 1)
        loop.zero()
    with lotto.sparse(model, mask) as loop:
        model.load_state_dict(dense)
        loop.zero()
        steps(model, optimizer, 1)
        model.load_state_dict(copy.deepcopy(model.state_dict()))  # sparse itself: nothing to notice
    with pytest.raises(UsageError, match="are not 0 at the end of the loop"), lotto.sparse(model, mask):
        model.load_state_dict(dense)


def test_what_is_infinite_where_it_is_pruned_is_zero():
    model = network()
    mask = half(model)
    with torch.no_grad():
        model[0].weight[~mask["0.weight"]] = float("inf")
    with lotto.sparse(model, mask):
        assert not pruned_values(model, mask).any()


def test_an_optimizer_that_remembers_rows_is_refused_at_its_first_step():
    model = network()
    optimizer = torch.optim.Adafactor(model.parameters())
    with (
        pytest.raises(UsageError, match=r"Adafactor keeps 'row_var' of shape .*cannot be set to 0"),
        lotto.sparse(model, half(model)),
    ):
        steps(model, optimizer, 1)
    with lotto.sparse(model):  # nothing is pruned: nothing to set to 0
        steps(model, torch.optim.Adafactor(model.parameters()), 1)


def test_bad_input_is_one_sentence():
    model = network()
    for arguments, words in (
        ({"mask": {"9.weight": torch.ones(2, 2)}}, "The mask has '9.weight', which the model has not"),
        ({"mask": {"0.weight": torch.ones(2, 2)}}, "has shape"),
        ({"keep": ["3ep"]}, "loops of your own have no epochs"),
        ({"keep": [3], "start_step": 5}, "keep=3 is before start_step=5"),
        ({"keep": ["soon"]}, "A step is text such as '500it'"),
    ):
        with pytest.raises(UsageError, match=words), lotto.sparse(model, **arguments):
            pass
