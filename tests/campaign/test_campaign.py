"""A slice of the campaign in a few seconds; `make test-extras` runs more of it, and all of it is a command."""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
from collections import Counter

import pytest

from campaign import BAD, Campaign, all_faults, kill_processes, kill_with_workers, one_damage, one_fault
from lotto import Store
from lotto.core import files

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return Campaign(tmp_path, 0)


def bad(tally: Counter[str]) -> dict[str, int]:
    return {word: tally[word] for word in BAD if tally[word]}


def test_killed_processes_lose_nothing(campaign):
    tally: Counter[str] = Counter()
    for number in range(2):
        kill_processes(campaign, tally, random.Random(number))
    assert tally["checked"] > 0
    assert bad(tally) == {}


def test_faults_of_the_system_lose_nothing(campaign):
    tally: Counter[str] = Counter()
    for fault in random.Random(0).sample(all_faults(campaign), 8):
        one_fault(campaign, tally, fault)
        assert bad(tally) == {}, fault


def test_damaged_files_are_noticed(campaign):
    tally: Counter[str] = Counter()
    for number in range(4):
        one_damage(campaign, tally, random.Random(number))
    assert tally["checked"] > 0
    assert bad(tally) == {}


@pytest.mark.extras
def test_the_campaign_notices_files_that_are_written_in_place(campaign, monkeypatch):
    def in_place(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as handle:
            handle.write(content)
        return real(path.with_name("other"), content)

    real = files.write_bytes
    monkeypatch.setattr(files, "write_bytes", in_place)
    writes = [fault for fault in all_faults(campaign, ["train"]) if fault[2] == errno.ENOSPC and fault[3]]
    tally: Counter[str] = Counter()
    for fault in reversed(writes):  # the manifest is written last
        if not tally["false damage"]:
            one_fault(campaign, tally, fault)
    assert tally["false damage"] > 0


@pytest.mark.extras
def test_the_campaign_notices_what_is_lost(campaign):
    tally: Counter[str] = Counter()
    kill_processes(campaign, tally, random.Random(0))
    while not campaign.finished:
        kill_processes(campaign, tally, random.Random(1))
    assert bad(tally) == {}
    Store(campaign.root).clear()
    shutil.rmtree(campaign.root)
    tally["rounds"] = 9  # after the next, everything is looked for
    kill_processes(campaign, tally, random.Random(0))
    assert tally["lost"] > 0


@pytest.mark.extras
@pytest.mark.parametrize("whom", ["parent", "worker", "group"])
def test_killed_workers_and_parents_lose_nothing(campaign, whom):
    tally: Counter[str] = Counter()
    for number in range(3):
        kill_with_workers(campaign, tally, random.Random(number), whom)
    assert bad(tally) == {}
