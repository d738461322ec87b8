"""Trees: leaves in order, shapes kept."""

from __future__ import annotations

from collections import namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotto.core.pytree import flatten, unflatten

Pair = namedtuple("Pair", ["one", "other"])

words = st.text("aB. é\0")  # of all of Unicode the tables would take seconds
trees = st.recursive(
    st.one_of(st.integers(), words, st.none()),
    lambda inner: st.one_of(
        st.lists(inner),
        st.dictionaries(words, inner),
        st.tuples(inner, inner),
        st.builds(Pair, inner, inner),
    ),
    max_leaves=12,
)


@given(trees)
def test_a_tree_is_made_again_from_its_leaves(tree):
    made = unflatten(tree, flatten(tree))
    assert made == tree
    assert type(made) is type(tree)


@given(trees)
def test_leaves_take_each_other_s_places(tree):
    numbers = list(range(len(flatten(tree))))
    assert flatten(unflatten(tree, numbers)) == numbers


def test_named_tuples_keep_their_type_and_dicts_their_order():
    tree = {"b": Pair(1, [2]), "a": (3,)}
    made = unflatten(tree, "xyz")
    assert made == {"b": Pair("x", ["y"]), "a": ("z",)}
    assert isinstance(made["b"], Pair)
    assert list(made) == ["b", "a"]


def test_what_is_no_container_is_a_leaf():
    assert flatten("text") == ["text"]
    assert unflatten("text", [{"any": "thing"}]) == {"any": "thing"}, "a container may take a leaf's place"
    assert flatten([]) == flatten({"a": ()}) == []


@pytest.mark.parametrize(("leaves", "word"), [("x", "fewer"), ("xyz", "more")])
def test_the_leaves_must_be_as_many(leaves, word):
    with pytest.raises(ValueError, match=f"The tree has 2 leaves; {word} were given"):
        unflatten([1, (2,)], leaves)
