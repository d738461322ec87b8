"""What a published version has stored is found and read by this one: nothing of the samples is ever made again."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pandas as pd
import pytest
import sampled

import lotto
from conftest import same_tensors
from lotto.cli.main import main
from lotto.core.weights import digest

HERE = Path(__file__).parent
VERSIONS = sorted(path.name for path in HERE.iterdir() if (path / "store").is_dir())
PROMISE = (
    "A store that a version has written is read by all later versions of the same major number (docs/remembering.md, "
    "What is promised): the key of {what} was {before} and is now {now}. Nobody's store would be found any more. Let a new "
    "field at its default enter no key, or raise fingerprint.SCHEMA together with the major version."
)
KEYS = {
    "a training": "66663c02512017b0daca4da2c855a0f9",
    "of a network of the user's": "96656253c8f44df36d163342be774401",
    "of a ticket": "cfa57fa3673d82af06a1c4147e70b914",
    "with a mask that changes": "2b98eeac7c3674c2ab7f23492d35b133",
    "a path": "0954994afcb65d0a281da034fb926b06",
}
SEARCHED = [
    "66663c02512017b0daca4da2c855a0f9", "1b9fd21beab92a81f03a7ad7cdc8cbb5", "b4b5f2220a2b2e48f5a21cda94ddd2eb",
    "bf0086c4d75d85de6351d0feb440552f",
]  # fmt: skip
"""Keys of the dense network, level 1, its random control, and level 2."""
DIGESTS = {
    "a training": "65ca0bdf9052cf90ef486b5530ca2e07", "of a network of the user's": "ace4b58b93af0743e2338b16cca5337c", "of a ticket": "3b17d5d9f7681701b659f7a51eea954d", "with a mask that changes": "15aa4b5aec8a9f431d50a0ba3536884d",
}  # fmt: skip
"""Of the trained weights."""
ERRORS = {"a training": 25.0, "of a network of the user's": 40.0, "of a ticket": 65.0, "with a mask that changes": 60.0}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=VERSIONS)
def sample(request, tmp_path):
    """A copy of a version's sample, of which nothing may change."""
    copied = Path(shutil.copytree(HERE / request.param, tmp_path / "sample"))
    before = contents(copied)
    yield copied
    assert contents(copied) == before


def test_there_is_a_sample():
    assert "0.1.0" in VERSIONS


@pytest.mark.parametrize("what", KEYS)
def test_keys_are_those_of_the_first_version(what):
    now = sampled.items()[what].key
    assert now == KEYS[what], PROMISE.format(what=what, before=KEYS[what], now=now)


def test_runs_are_found_by_their_keys_and_are_what_was_trained(sample):
    store = lotto.Store(sample / "store")
    for what, expected in DIGESTS.items():
        run = store.lookup(sampled.items()[what])
        assert run is not None, what
        assert digest(run.weights) == expected
        assert run.test_error == ERRORS[what]
        assert run.mistakes is not None
    assert same_tensors(
        store.lookup(sampled.items()["a training"]).at(3), lotto.load(sample / "result").runs[0, 0, "imp"].at(3)
    )


def test_what_a_task_computed_is_found(sample):
    outcome = lotto.Store(sample / "store").lookup(sampled.items()["a path"])
    assert outcome == {
        "alphas": [0.0, 0.5, 1.0],
        "loss": {"test": [1.2900500297546387, 1.0986120700836182, 1.0842888355255127]},
        "error": {"test": [85.0, 60.0, 60.0]},
    }


def test_a_search_is_found_whole(sample):
    """Also of levels, whose keys hold the weights and masks of what came before: nothing is trained (see `sample`)."""
    result = sampled.searched(lotto.Store(sample / "store"))
    assert [run.key for run in result.runs.values()] == SEARCHED
    table = pd.read_csv(sample / "result" / "table.csv")
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(result.table_as("csv"))), table, check_exact=True)


def test_a_result_and_its_ticket_are_read(sample):
    result = lotto.load(sample / "result")
    table = pd.read_csv(sample / "result" / "table.csv")
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(result.table_as("csv"))), table, check_exact=True)
    ticket, level = lotto.Ticket.load(sample / "result" / "ticket.safetensors"), result.chosen_level
    assert same_tensors(ticket.start, result.ticket(level).start)
    assert same_tensors(ticket.mask, result.ticket(level).mask)
    assert result.ticket(2).mask.density == pytest.approx(5 / 21)


def test_the_commands_take_it_for_a_store_of_their_own(sample, capsys):
    main(["store", "verify", "--store", str(sample / "store")])
    assert "8 of 8 entries are whole" in capsys.readouterr().out


def test_another_key_is_a_sentence_that_says_what_was_promised(monkeypatch):
    monkeypatch.setattr(sampled, "SCALE", 3.0)
    with pytest.raises(AssertionError, match="read by all later versions of the same major number"):
        test_keys_are_those_of_the_first_version("of a network of the user's")
