"""What the commands share: the folder of results, lists of numbers, data with a progress bar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lotto.cli.screen import console
from lotto.core.errors import StorageError, UsageError

if TYPE_CHECKING:
    from lotto.data import Arrays, ImageFolder


def writable(folder: Path) -> Path:
    """Make the folder of the results before anything is trained for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise StorageError(f"Cannot write to {folder}: {error.strerror}. Name another folder with --out.") from error
    return folder


def whole_numbers(text: str, option: str) -> list[int]:
    """Read ``8,14``."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{option} takes whole numbers separated by commas; got {text!r}.") from error


def load_with_progress(name: str) -> Arrays | ImageFolder:
    """The data set of this name; a bar shows its download."""
    from lotto.cli.display import download_display
    from lotto.data import load

    with download_display(console) as progress:
        return load(name, progress)
