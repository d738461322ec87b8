"""Names of the files of a result, and what is said where they are not there: without importing what reads them."""

from __future__ import annotations

from pathlib import Path

from lotto.core.errors import UsageError, text

RESULT, TRAINED = "result.json", "trained.safetensors"


def no_result(folder: Path) -> UsageError:
    """There is no result in a folder.

    >>> print(no_result(Path("found")))
    found holds no result: there is no readable result.json in it.
    """
    return UsageError(f"{folder} holds no result: there is no readable {RESULT} in it.")


def result_folder(path: Path) -> Path:
    """The folder that is meant: itself, or that of a file in it.

    Raises:
        UsageError: if there is neither.

    >>> result_folder(Path("nowhere"))
    Traceback (most recent call last):
    lotto.core.errors.UsageError: There is no file or folder 'nowhere'; `lotto ls` lists the results that there are.
    """
    if path.is_dir():
        return path
    if not path.exists():
        raise UsageError(f"There is no file or folder {text(str(path))}; `lotto ls` lists the results that there are.")
    return path.parent


def trained_folder(path: Path) -> Path:
    """The folder of a trained network, from itself or a file in it.

    Raises:
        UsageError: if there is none.
    """
    folder = result_folder(path)
    if not (folder / TRAINED).exists():
        raise UsageError(f"There is no {TRAINED} in {folder}; `lotto imp` writes it beside the ticket.")
    return folder
