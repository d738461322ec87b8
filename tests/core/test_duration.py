from __future__ import annotations

import pytest

from lotto.core.duration import iterations
from lotto.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500it", 500), ("3ep", 300), ("2ep50it", 250), (7, 7), ("7", 7), ("0it", 0), ("0.5ep", 50)],
)
def test_parse(text, expected):
    assert iterations(text, 100) == expected


@pytest.mark.parametrize("bad", ["", "ep", "3 epochs", "-1", "it50", "1.5it", 1.5, None, True])
def test_unreadable_steps_say_what_is_expected(bad):
    with pytest.raises(UsageError, match="such as '500it', '3ep' or '2ep50it'"):
        iterations(bad, 100)
