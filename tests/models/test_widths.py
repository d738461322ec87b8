"""Widths in the names of models."""

from __future__ import annotations

import pytest

from lotto.core.errors import UsageError
from lotto.models.widths import widened, widths


def test_a_width_is_in_the_name_of_a_model_or_refused():
    assert [widened("resnet-20-w8", f) for f in (0.5, 1, 2)] == ["resnet-20-w4", "resnet-20-w8", "resnet-20-w16"]
    assert (widened("lenet-300-100", 0.1), widths("mlp-24-16")) == ("lenet-30-10", (24, 16))
    for model in ("conv-2", "resnet-20", "mlp", "gru-8"):
        for function in (widths, lambda name: widened(name, 2)):
            with pytest.raises(UsageError, match=f"got the model '{model}'"):
                function(model)
    for factor in (0.01, 0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="one unit wide"):
            widened("resnet-20-w8", factor)
