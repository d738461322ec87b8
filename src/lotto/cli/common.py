"""What the commands share: where they print, the folder of results, data with a progress bar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from lotto.cli.streams import CLOSED_PIPE, discard
from lotto.core.errors import StorageError, UsageError
from lotto.core.text import printable

if TYPE_CHECKING:
    from lotto.data import Arrays, ImageFolder


class Screen(Console):
    """A console whose reader may go away."""

    def on_broken_pipe(self) -> None:
        """End quietly, as programs do that a closed pipe ends; what they have to undo they undo."""
        self.quiet = True
        discard(self.file)
        raise SystemExit(CLOSED_PIPE)


console = Screen()
errors = Screen(stderr=True)


def say(text: str, style: str = "", to: Console | None = None) -> None:
    """Print a line as it is: names in it are data, and long paths stay whole."""
    (to or console).print(Text(printable(text), style), soft_wrap=True, highlight=False)


def complain(text: str) -> None:
    """Print why the command cannot go on."""
    errors.print(Text.assemble(("lotto: ", "bold red"), printable(text)), soft_wrap=True, highlight=False)


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
