"""The command line's entry: how it begins, and how it ends whatever happens.

What takes time is imported within the functions, when signals are already handled.
"""

from __future__ import annotations

import os
import sys

from lotto.cli.stopping import stopping

TYPE_CHECKING = False  # without `typing`: until `main` is called, Ctrl-C gives a traceback
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Exits with 2 on what the user can put right, 1 on what cannot be foreseen (``LOTTO_TRACEBACK=1`` shows where), 128
    and the number of the signal that stopped it, 141 when nobody reads its output any more.

    Args:
        arguments: instead of those of the program; the process then goes on afterwards.
    """
    program = arguments is None
    with stopping.handled(program):
        from lotto.cli.streams import flush_streams, open_streams

        if program:
            open_streams()
        code = _exit_code(arguments)
        if program:
            code = flush_streams(code)
    if code is not None:
        sys.exit(code)


def _exit_code(arguments: Sequence[str] | None) -> int | str | None:
    """Run a command; whatever ends it becomes a line and an exit code."""
    try:
        from lotto.cli.commands import run_command

        run_command(arguments)
        return None
    except BaseException as error:
        if stopping.number or isinstance(error, KeyboardInterrupt):
            return stopping.stopped()
        return (error.code or 0) if isinstance(error, SystemExit) else _explained(error)


def _explained(error: BaseException) -> int:
    from lotto.cli.screen import complain
    from lotto.cli.streams import CLOSED_PIPE, discard
    from lotto.core.errors import LottoError
    from lotto.core.text import printable

    if isinstance(error, BrokenPipeError):
        discard(sys.stdout)
        return CLOSED_PIPE
    if os.environ.get("LOTTO_TRACEBACK"):
        raise error
    if isinstance(error, LottoError):
        complain(str(error))
        return 2
    if isinstance(error, OSError):
        named = f" ({printable(str(error.filename), 200)})" if error.filename is not None else ""
        complain(f"The system refuses: {error.strerror or error}{named}.")
        return 1
    if isinstance(error, Exception):
        complain(f"Unforeseen {type(error).__name__}: {error} (LOTTO_TRACEBACK=1 shows where it comes from).")
        return 1
    raise error


if __name__ == "__main__":
    main()
