"""What can be pruned: matrices of layers that we know, patterns of what is included and excluded, and what is left."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

import lotto
from conftest import small_recipe
from lotto.core.errors import UsageError
from lotto.pruning import Pruning, masks
from lotto.pruning.prunable import choose, prunable_names, summary


class Attention(nn.Module):
    """An embedding, a table of positions, attention and a head."""

    def __init__(self):
        super().__init__()
        self.embed, self.positions = nn.Embedding(12, 8), nn.Parameter(torch.zeros(1, 5, 8))
        self.layer, self.head = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 3)


ATTENTION = [
    "layer.self_attn.in_proj_weight", "layer.self_attn.out_proj.weight", "layer.linear1.weight", "layer.linear2.weight",
    "head.weight",
]  # fmt: skip


def test_recurrent_matrices_are_prunable():
    lstm = nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2)
    matrices = {n for n, p in lstm.named_parameters() if p.dim() == 2}
    assert set(prunable_names(nn.Sequential(lstm))) == {f"0.{name}" for name in matrices}
    assert {"weight_hr_l0", "weight_hh_l1_reverse"} <= matrices
    for layer in (nn.GRU(3, 4), nn.RNN(3, 4)):
        assert prunable_names(layer) == ["weight_ih_l0", "weight_hh_l0"]
    for cell in (nn.LSTMCell(3, 4), nn.GRUCell(3, 4), nn.RNNCell(3, 4)):
        assert prunable_names(cell) == ["weight_ih", "weight_hh"]


def test_attention_is_prunable_without_its_biases():
    assert prunable_names(Attention()) == ATTENTION
    apart = nn.MultiheadAttention(8, 2, kdim=4, vdim=6, add_bias_kv=True)
    assert prunable_names(apart) == ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]
    assert choose(apart).left_out == []


def test_transposed_convolutions_and_bilinear_layers_are_prunable():
    model = nn.Sequential(nn.ConvTranspose2d(2, 3, 3), nn.Bilinear(3, 4, 5))
    assert prunable_names(model) == ["0.weight", "1.weight"]


def test_embeddings_and_parameters_of_ones_own_are_included_by_name():
    model = Attention()
    assert prunable_names(model, include=("embed",)) == ["embed.weight", *ATTENTION]
    assert prunable_names(model, include=("positions", "emb*")) == ["positions", "embed.weight", *ATTENTION]
    mask = masks.ones(model, include=("positions",))
    assert mask["positions"].shape == (1, 5, 8)
    kept = lotto.pruning.prune(dict(model.named_parameters()), mask, 0.5, "random")
    assert masks.count(kept) == masks.size(mask) - round(0.5 * masks.size(mask))


def test_patterns_reach_layers_modules_and_parameters():
    model = Attention()
    assert prunable_names(model, exclude=("layer",)) == ["head.weight"]
    assert prunable_names(model, exclude=("*.linear?", "head.weight")) == ATTENTION[:2]
    assert prunable_names(model, exclude=("head",), include=("*",)) == ["positions", "embed.weight", *ATTENTION[:-1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude": ("heed",)}, r"Cannot exclude 'heed': no such prunable layer\. Did you mean 'head'"),
        ({"exclude": ("q*q",)}, r"Cannot exclude 'q\*q': no such prunable layer\. Names are "),
        ({"include": ("embedd",)}, r"Cannot include 'embedd': no such parameter\. Did you mean 'embed'"),
        ({"include": ("head.bias",)}, r"Cannot include 'head\.bias': only matrices are pruned"),
        ({"exclude": ("*",)}, r"no prunable weights.*left out: positions \(excluded\), embed\.weight \(excluded\)"),
    ],
)
def test_patterns_that_fit_nothing_are_one_sentence(options, message):
    with pytest.raises(UsageError, match=message):
        prunable_names(Attention(), **options)


def test_a_recipe_takes_patterns_beside_its_rule():
    recipe = small_recipe(pruning=Pruning(0.3, exclude=("fc1",)))
    more = lotto.Recipe(recipe.model, recipe.data, pruning=recipe.pruning, exclude="fc2")
    assert more.exclude == more.pruning.exclude == ("fc1", "fc2")
    assert list(masks.ones(more)) == ["fc3.weight"]
    assert more.replace(steps="3it").exclude == ("fc1", "fc2")
    assert more.replace(exclude=("fc3",)).pruning == Pruning(more.pruning.rate, exclude=("fc3",))
    assert more.replace(pruning=Pruning()).exclude == ()
    assert more.fingerprint() == small_recipe(**{n: getattr(more, n) for n in ("optimizer", "schedule", "batch_size",
        "steps", "init", "evaluations")}).fingerprint()  # fmt: skip
    assert repr(Pruning()) == "Pruning(rate=0.2, score='magnitude', scope='global', rates={}, exclude=())"
    assert repr(Pruning(include="embed")).endswith("exclude=(), include=('embed',))")
    with pytest.raises(UsageError, match="exclude is a list of texts"):
        Pruning(exclude=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("normed", [parametrizations.weight_norm, parametrizations.spectral_norm, spectral_norm])
def test_an_excluded_layer_is_not_looked_at(normed):
    def net():
        return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), normed(nn.Linear(8, 6)))

    recipe = small_recipe(model=net, init="module", steps="3it", exclude=("2",))
    assert list(masks.ones(recipe)) == ["0.weight"]
    result = lotto.imp(recipe, levels=1, replicates=1, controls=(), jobs=1)
    assert [round(density, 2) for density in result.table()["density"]] == [1.0, 0.8]
    with pytest.raises(UsageError, match=r"weight of '2' is computed .* exclude=\('2',\)"):
        masks.ones(recipe.replace(exclude=()))


def test_a_computed_recurrent_matrix_is_refused_by_name():
    lstm = nn.utils.parametrizations.weight_norm(nn.LSTM(3, 4), "weight_hh_l0")
    model = nn.Sequential(lstm, nn.Linear(4, 2))
    with pytest.raises(UsageError, match="The weight_hh_l0 of '0' is computed"):
        prunable_names(model)
    assert prunable_names(model, exclude=("0.weight_hh_l0",)) == ["0.weight_ih_l0", "1.weight"]


def test_frozen_weights_are_pruned_only_when_asked():
    model = Attention()
    model.layer.requires_grad_(False)
    assert prunable_names(model) == ["head.weight"]
    assert prunable_names(model, include=("layer.linear1",)) == ["layer.linear1.weight", "head.weight"]
    model.requires_grad_(False)
    with pytest.raises(UsageError, match=r"left out: .*frozen.*include=\(name,\)"):
        prunable_names(model)


def test_a_shared_weight_is_counted_once_and_excluded_under_any_name():
    model = Attention()
    tied = nn.Linear(8, 12, bias=False)
    tied.weight = model.embed.weight
    model.tied = tied
    assert prunable_names(model) == [*ATTENTION, "tied.weight"]
    assert [it.name for it in choose(model).left_out] == ["positions"]
    assert prunable_names(model, exclude=("embed",)) == ATTENTION
    assert prunable_names(model, include=("tied",)) == ["embed.weight", *ATTENTION]
    total = sum(p.numel() for p in set(model.parameters()))
    assert masks.parameter_count(model) == total
    gone = torch.zeros(12, 8, dtype=torch.bool)
    assert masks.parameter_fraction({"tied.weight": gone}, model) == pytest.approx(1 - 96 / total)
    assert masks.parameter_fraction({"tied.weight": gone, "embed.weight": gone}, model) == pytest.approx(1 - 96 / total)


def test_what_is_left_out_is_named_with_its_share():
    model = Attention()
    model.layer.linear1.weight.requires_grad_(False)
    found = choose(model, exclude=("head",)).left_out
    assert {it.name: it.reason for it in found} == {
        "positions": "parameter of Attention",
        "embed.weight": "embedding",
        "layer.linear1.weight": "frozen",
        "head.weight": "excluded",
    }
    share = 100 * 40 / sum(p.numel() for p in model.parameters())
    text = summary(found, masks.parameter_count(model))
    assert text.startswith(f"Not pruned: positions (parameter of Attention, {share:.3g} % of all parameters); embed")
    many = [found[0]] * 5
    assert "positions, positions, positions and 2 more (parameter of Attention, 100 % of" in summary(many, 5 * 40)
    assert summary([], 10) == ""


def test_rates_are_given_by_patterns_and_the_last_one_holds():
    model = nn.Sequential(nn.LSTM(3, 4), nn.Linear(4, 5))
    weights, mask = dict(model.named_parameters()), masks.ones(model)
    kept = lotto.pruning.prune(weights, mask, 0.5, rates={"0": 0.25, "*.weight_hh_l0": 0})
    counts = {n: int(m.sum()) for n, m in kept.items()}
    assert counts == {"0.weight_ih_l0": 36, "0.weight_hh_l0": 64, "1.weight": 10}


def test_initialisation_leaves_frozen_and_recurrent_weights_as_they_are():
    def net():
        model = nn.Sequential(nn.LSTM(12, 6), nn.Linear(6, 6), nn.Linear(6, 6))
        model[2].requires_grad_(False)
        return model

    recipe = small_recipe(model=net, init="kaiming-normal")
    built, found = recipe.build(3).state_dict(), recipe.initial(3)
    changed = {name for name, tensor in found.items() if not torch.equal(tensor, built[name])}
    assert changed == {"1.weight", "1.bias"}
