"""Where the commands print."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from lotto.cli.streams import CLOSED_PIPE, discard
from lotto.core.text import printable


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
