"""BERT's encoder with a classifier on the mean of its tokens, a plain module with the original's names of parameters.

Devlin et al., 1810.04805; MiniLM (Wang et al., 2002.10957) is a small one of them. Weights saved from the class
BertModel of transformers fit, without its pooler. There is no dropout.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

PADDING = 0
"""The token that fills up short texts: it is not attended to, and has no part in the mean."""
STD = 0.02
"""Of new matrices, as in the original."""


class Embeddings(nn.Module):
    """Token, position and segment (always the first) as one vector."""

    def __init__(self, vocabulary: int, positions: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width, padding_idx=PADDING)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, ids: Tensor) -> Tensor:
        """From (batch, tokens) to (batch, tokens, width)."""
        places = self.position_embeddings.weight[: ids.shape[1]]
        return self.LayerNorm(self.word_embeddings(ids) + places + self.token_type_embeddings.weight[0])


class SelfAttention(nn.Module):
    """Queries, keys and values of all heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Shape (batch, tokens, width); ``seen`` broadcasts to (batch, heads, queries, keys)."""
        query, key, value = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        return F.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2).flatten(2)


class AddNorm(nn.Module):
    """A linear layer whose outputs are added to what came before, normalised."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """Shape of ``before``."""
        return self.LayerNorm(self.dense(x) + before)


class Attention(nn.Module):
    """Attention with its output layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self = SelfAttention(width, heads)
        self.output = AddNorm(width, width)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Shape of ``x``."""
        return self.output(self.self(x, seen), x)


class Intermediate(nn.Module):
    """The wide layer."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """From (batch, tokens, width) to (batch, tokens, hidden)."""
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    """Attention and two linear layers, each with its sum and LayerNorm."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.intermediate = Intermediate(width, hidden)
        self.output = AddNorm(hidden, width)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Shape of ``x``."""
        x = self.attention(x, seen)
        return self.output(self.intermediate(x), x)


class Encoder(nn.Module):
    """Layers, one after the other."""

    def __init__(self, layers: int, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(width, heads, hidden) for _ in range(layers))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Shape of ``x``."""
        for layer in self.layer:
            x = layer(x, seen)
        return x


class Bert(nn.Module):
    """An encoder and class scores of the mean over a text's tokens.

    Example:
        >>> from lotto.models.bert import Bert
        >>> net = Bert(classes=2, vocabulary=50, positions=8, width=12, layers=2, heads=3, hidden=24)
        >>> net(torch.tensor([[1, 7, 9, 2], [1, 7, 2, 0]])).shape  # the second text is one token shorter
        torch.Size([2, 2])

    Args:
        classes: number of outputs.
        vocabulary: number of tokens; 0 is the padding.
        positions: tokens of the longest text.
        width: numbers for each token.
        layers: how many.
        heads: of attention in each layer; they share the width.
        hidden: width of the layer between.
        reads: so many tokens from a text's beginning, at most; None = as many as there are positions.
    """

    def __init__(
        self,
        classes: int,
        vocabulary: int = 30_522,
        positions: int = 512,
        width: int = 384,
        layers: int = 6,
        heads: int = 12,
        hidden: int = 1_536,
        reads: int | None = None,
    ) -> None:
        super().__init__()
        self.reads = min(reads or positions, positions)
        self.embeddings = Embeddings(vocabulary, positions, width)
        self.encoder = Encoder(layers, width, heads, hidden)
        self.classifier = nn.Linear(width, classes)
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=STD)
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)

    def tokens(self, ids: Tensor) -> Tensor:
        """The encoder's output for each token, shape (batch, tokens, width)."""
        return self.encoder(self.embeddings(ids), (ids != PADDING)[:, None, None])

    def forward(self, ids: Tensor) -> Tensor:
        """Class scores, shape (batch, classes), of ids of shape (batch, tokens), 0 behind each text's end."""
        ids = ids[:, : self.reads]
        weights = (ids != PADDING).to(self.classifier.weight.dtype)[..., None]
        return self.classifier((self.tokens(ids) * weights).sum(1) / weights.sum(1).clamp(min=1))
