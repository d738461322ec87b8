from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

import lotto
from conftest import same_tensors, small_recipe
from lotto.core.errors import UsageError
from lotto.core.weights import digest
from lotto.data.sources import download
from lotto.data.sources.catalog import WEIGHTS, Packages, Published
from lotto.pruning import masks
from lotto.recipe import Pretrained


def body(seed: int = 5) -> dict[str, torch.Tensor]:
    return {name: w for name, w in small_recipe().initial(seed).items() if not name.startswith("fc3")}


def test_given_layers_begin_at_the_weights_and_new_ones_at_those_of_the_seed():
    given = body()
    recipe = small_recipe(pretrained=Pretrained(given, new="fc3"))
    for seed in (0, 1):
        begun, drawn = recipe.initial(seed), small_recipe().initial(seed)
        assert [*begun] == [*drawn]
        assert same_tensors({n: begun[n] for n in given}, given)
        assert same_tensors(
            {n: begun[n] for n in begun if n not in given}, {n: drawn[n] for n in drawn if n not in given}
        )
    begun["fc1.weight"].zero_()
    assert same_tensors({n: recipe.initial(0)[n] for n in given}, given), "what is handed over is a copy"


@pytest.mark.parametrize(
    ("new", "text"),
    [
        ((), "'fc3.*' is in only one of them"),
        ("fc9", "new='fc9' names no layer of the network, which has"),
        (("fc3", "fc2"), "'fc2.*' is in only one of them"),
    ],
)
def test_every_layer_is_either_given_or_new(new, text):
    with pytest.raises(UsageError, match=text):
        small_recipe(pretrained=Pretrained(body(), new=new)).initial(0)


def test_the_content_is_the_key_whatever_it_comes_from(tmp_path):
    save_file(body(), tmp_path / "body.safetensors")
    one = small_recipe(pretrained=Pretrained(body(), new="fc3"))
    assert (
        lotto.Job(one).key
        == lotto.Job(small_recipe(pretrained=Pretrained(tmp_path / "body.safetensors", new="fc3"))).key
    )
    assert lotto.Job(one).key != lotto.Job(small_recipe(pretrained=Pretrained(body(6), new="fc3"))).key
    assert lotto.Job(one).key != lotto.Job(small_recipe()).key


@pytest.fixture
def named(monkeypatch):
    """Published weights called ``some-body``; gives the list of how often they were fetched."""
    fetched = []

    def decode():
        fetched.append(1)
        return {name: w.numpy() for name, w in body().items()}

    made = Published("some-body", (Packages((), decode),), digest=digest(body()), kind="weights")
    monkeypatch.setitem(WEIGHTS, "some-body", made)
    return fetched


def test_published_weights_are_fetched_when_they_are_needed_and_do_not_travel(named, tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTO_DATA", str(tmp_path))
    recipe = small_recipe(pretrained=Pretrained("some-body", new="fc3"))
    assert recipe.fingerprint() == small_recipe(pretrained=Pretrained(body(), new="fc3")).fingerprint()
    assert not named, "the catalogue knows their digest"
    assert lotto.Job(recipe).key == lotto.Job(small_recipe(pretrained=Pretrained(body(), new="fc3"))).key
    assert same_tensors(recipe.initial(0), small_recipe(pretrained=Pretrained(body(), new="fc3")).initial(0))
    assert len(named) == 1
    sent = pickle.dumps(recipe.pretrained)
    assert len(sent) < 1_000
    assert same_tensors(pickle.loads(sent).weights, body())
    assert (repr(recipe.pretrained), hash(recipe.pretrained)) == (
        f"Pretrained(some-body, {digest(body())[:8]})", hash(Pretrained(body(), new="fc3")),
    )  # fmt: skip
    assert len(named) == 1, "from the cache"
    assert download.get(WEIGHTS["some-body"]).keys() == body().keys()


def test_an_unknown_name_is_a_file_that_is_not_there():
    with pytest.raises(UsageError, match=r"minilm-l7 cannot be read as safetensors .* one of the names minilm-l6\."):
        small_recipe(pretrained="minilm-l7")


def test_a_ticket_of_pretrained_weights_holds_them_and_the_control_draws_all_anew(store):
    recipe = small_recipe(pretrained=Pretrained(body(), new="fc3"), tolerance=50.0)
    result = lotto.imp(recipe, densities=[0.5], replicates=2, controls=("reinit",), store=store, jobs=1)
    heads = []
    for replicate, (_, level) in enumerate(result.replicates):
        ticket = result.ticket(1, replicate)
        mask = {n: m for n, m in level.mask.items() if n in body()}
        assert same_tensors({n: ticket.start[n] for n in mask}, masks.apply({n: body()[n] for n in mask}, mask))
        heads.append(ticket.start["fc3.bias"] if ticket.start["fc3.bias"].any() else ticket.start["fc3.weight"])
        assert not torch.equal(level.controls["reinit"].weights["fc1.weight"], level.run.weights["fc1.weight"])
    assert not torch.equal(*heads), "each replicate has a head of its own"
