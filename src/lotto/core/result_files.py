"""Names of the files of a result, and what is said where they are not there: without importing what reads them."""

from __future__ import annotations

from pathlib import Path

from lotto.core.errors import UsageError

RESULT, TRAINED = "result.json", "trained.safetensors"


def no_result(folder: Path) -> UsageError:
    """There is no result in a folder.

    >>> print(no_result(Path("found")))
    found holds no result: there is no readable result.json in it.
    """
    return UsageError(f"{folder} holds no result: there is no readable {RESULT} in it.")


def trained_folder(path: Path) -> Path:
    """The folder of a trained network, from itself or a file in it.

    Raises:
        UsageError: if there is none.
    """
    folder = path if path.is_dir() else path.parent
    if not (folder / TRAINED).exists():
        raise UsageError(f"There is no {TRAINED} in {folder}; `lotto imp` writes it beside the ticket.")
    return folder
