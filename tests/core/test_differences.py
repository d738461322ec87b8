"""Where two records differ."""

import json

from lotto.core.differences import differences


def test_differences_are_named_path_by_path():
    a = {"lr": 0.1, "same": [1, 2], "parts": [{"name": "A", "digest": "x"}, {"name": "B", "digest": "y"}], "n": 1}
    b = {"lr": 0.2, "same": [1, 2], "parts": [{"name": "B", "digest": "z"}, {"name": "A", "digest": "x"}], "l": [1, 2]}
    assert differences({"recipe": a}, {"recipe": b}) == [
        ("recipe.l", "(absent)", "[1, 2]"),
        ("recipe.lr", "0.1", "0.2"),
        ("recipe.n", "1", "(absent)"),
        ("recipe.parts.B.digest", "y", "z"),
    ]
    assert differences([1, [2]], [1, [3, 4]]) == [("[1][0]", "2", "3"), ("[1][1]", "(absent)", "4")]
    assert differences({"a": True}, {"a": 1}) == [("a", "true", "1")]
    assert differences({"a": None}, {}) == [("a", "null", "(absent)")]
    assert differences(a, json.loads(json.dumps(a))) == []
