from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lotto.core.errors import UsageError
from lotto.models import build
from lotto.models.bert import Bert
from lotto.pruning import masks

SIZES = {"vocabulary": 40, "positions": 9, "width": 12, "layers": 2, "heads": 3, "hidden": 20}


def small(**changes) -> Bert:
    torch.manual_seed(0)
    net = Bert(3, **{**SIZES, **changes}).double()
    with torch.no_grad():  # biases and scales that are not 0 and 1, weights large enough for unequal attention
        for name, p in net.named_parameters():
            p.copy_(torch.randn_like(p) * (0.5 if p.dim() > 1 else 0.3) + ("LayerNorm.weight" in name))
    return net


def by_hand(net: Bert, ids: list[int], heads: int = 3) -> torch.Tensor:
    """Class scores of one text without padding, token by token and head by head, from the named weights alone."""
    w = dict(net.named_parameters())

    def linear(x, name):
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean()
        return centred / torch.sqrt((centred**2).mean() + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]

    tables = [f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")]
    x = [norm(w[tables[0]][i] + w[tables[1]][at] + w[tables[2]][0], "embeddings.LayerNorm") for at, i in enumerate(ids)]
    for layer in range(len(net.encoder.layer)):
        here = f"encoder.layer.{layer}"
        q, k, v = ([linear(t, f"{here}.attention.self.{part}") for t in x] for part in ("query", "key", "value"))
        size = len(x[0]) // heads
        mixed = []
        for one in q:
            parts = []
            for head in range(heads):
                at = slice(head * size, (head + 1) * size)
                scores = torch.stack([one[at] @ key[at] / math.sqrt(size) for key in k]).softmax(0)
                parts.append(sum(s * value[at] for s, value in zip(scores, v, strict=True)))
            mixed.append(torch.cat(parts))
        added = [linear(m, f"{here}.attention.output.dense") + t for m, t in zip(mixed, x, strict=True)]
        x = [norm(a, f"{here}.attention.output.LayerNorm") for a in added]
        wide = [linear(t, f"{here}.intermediate.dense") for t in x]
        wide = [t * 0.5 * (1 + torch.erf(t / math.sqrt(2))) for t in wide]
        x = [
            norm(linear(h, f"{here}.output.dense") + t, f"{here}.output.LayerNorm")
            for h, t in zip(wide, x, strict=True)
        ]
    return linear(torch.stack(x).mean(0), "classifier")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(1, 39), min_size=1, max_size=9), min_size=1, max_size=4))
def test_scores_are_those_of_each_text_alone_whatever_it_is_padded_to(texts):
    net = small()
    longest = max(map(len, texts))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    expected = torch.stack([by_hand(net, text) for text in texts])
    torch.testing.assert_close(net(ids), expected, rtol=1e-9, atol=1e-9)


def test_a_text_is_read_up_to_so_many_tokens():
    whole, cut = small(), small(reads=4)
    cut.load_state_dict(whole.state_dict())
    ids = torch.tensor([[1, 5, 6, 7, 8, 2], [1, 5, 2, 0, 0, 0]])
    torch.testing.assert_close(cut(ids), whole(ids[:, :4]))
    assert not torch.allclose(cut(ids), whole(ids))


def test_an_empty_text_gives_numbers_and_no_gradient_to_the_padding():
    net = small()
    outputs = net(torch.tensor([[0, 0, 0], [1, 2, 0]]))
    assert torch.isfinite(outputs).all()
    outputs.sum().backward()
    assert not net.embeddings.word_embeddings.weight.grad[0].any()


def test_minilm_has_the_size_that_its_makers_say_and_the_encoder_is_less_than_half():
    with torch.device("meta"):
        net = build("minilm-l6", (128,), 2)
        assert build("minilm-l6-t48", (128,), 2).reads == 48
    head = 2 * 384 + 2
    assert sum(p.numel() for p in net.parameters()) == 22_565_376 + head  # 22.7 million with the pooler's 147,840
    names = [name for name in masks.ones(net) if not name.startswith("classifier")]
    assert sum(net.get_parameter(name).numel() for name in names) == 6 * (4 * 384**2 + 2 * 384 * 1_536) == 10_616_832
    with pytest.raises(UsageError, match="'minilm-l6' cannot read inputs of shape"):
        build("minilm-l6", (3, 32, 32), 2)


@pytest.mark.extras
def test_on_the_real_weights_tokens_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    from lotto.data.sources import download
    from lotto.data.sources.catalog import WEIGHTS

    if not (download.cache_folder() / "minilm-l6.safetensors").exists():
        pytest.skip("the weights are not in the cache: lotto data get minilm-l6")
    weights = download.get(WEIGHTS["minilm-l6"])
    config = transformers.BertConfig(
        vocab_size=30_522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1_536
    )
    theirs = transformers.BertModel(config, add_pooling_layer=False).eval()
    theirs.load_state_dict(weights, strict=True)
    ours = Bert(2)
    missing = ours.load_state_dict(weights, strict=False)
    assert missing.missing_keys == ["classifier.weight", "classifier.bias"]
    assert not missing.unexpected_keys
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1_000, 30_000, (3, 24), generator=generator)
    ids[1, 15:] = ids[2, 3:] = 0
    seen = ids != 0
    with torch.no_grad():
        expected = theirs.double()(ids, attention_mask=seen.long()).last_hidden_state
        got = ours.double().tokens(ids)
    torch.testing.assert_close(got[seen], expected[seen], rtol=1e-9, atol=1e-9)
