"""What the commands share: the folder of results, lists of numbers, data with a progress bar."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lotto.cli.screen import console, say
from lotto.core.errors import StorageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lotto.data import Arrays, ImageFolder
    from lotto.report.folders import Place


def writable(wanted: Path, places: Sequence[Place]) -> Path:
    """The folder of the results, made and tried before anything is trained for it.

    If another experiment lies in the one that is wanted it is a new one, which is said.

    Raises:
        StorageError: if nothing can be written there.
    """
    from lotto.report.folders import own_folder

    folder = own_folder(wanted, places)
    check_writable(folder)
    if folder != wanted:
        say(f"{wanted} holds another experiment; the results go to {folder}.")
    return folder


def check_writable(folder: Path) -> None:
    """Make a folder and try to write there, before what takes long is done for it.

    Raises:
        StorageError: if nothing can be written.
    """
    from lotto.core.files import reason

    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise StorageError(f"Cannot write to {folder}: {reason(error)}. Name another folder with --out.") from error


def find_modules_of(*names: str | None) -> None:
    """Let ``module:name`` on the command line be of a file in this folder, as it is with ``python -m``."""
    if any(name and ":" in name for name in names) and not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())


def whole_numbers(text: str, option: str) -> list[int]:
    """Read ``8,14``."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{option} takes whole numbers separated by commas; got {text!r}.") from error


def numbers(text: str, option: str) -> list[float]:
    """Read ``0.5,0.25``."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{option} takes numbers separated by commas, such as 0.5,0.25,0.1; got {text!r}.") from error


def replicates_of(text: str | None) -> int | str | None:
    """Read ``--replicates``: a number, or a word that the library checks."""
    if text is None or text == "auto":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise UsageError(f"--replicates is a whole number from 1, or auto; got {text!r}.") from error


def load_with_progress(name: str) -> Arrays | ImageFolder:
    """The data set of this name; a bar shows its download."""
    from lotto.cli.display import download_display
    from lotto.data import load

    with download_display(console) as progress:
        return load(name, progress)
