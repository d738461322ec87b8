"""The command line: a thin face on the library, one file a command."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence

import tyro
from rich.logging import RichHandler
from rich.markup import escape

from lotto.cli.bench_command import bench
from lotto.cli.claims_command import claims
from lotto.cli.common import errors
from lotto.cli.data_command import data
from lotto.cli.export_command import export
from lotto.cli.imp_command import imp
from lotto.cli.recipes_command import list_recipes
from lotto.cli.report_command import report
from lotto.cli.run_command import run
from lotto.core.errors import LottoError

COMMANDS: dict[str, Callable[..., None]] = {
    "imp": imp,
    "run": run,
    "claims": claims,
    "data": data,
    "recipes": list_recipes,
    "report": report,
    "export": export,
    "bench": bench,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 2 on what the user can put right, 130 on Ctrl-C."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=errors, show_path=False, show_time=False)],
    )
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="lotto",
            description="Find winning tickets: sparse subnetworks that train as well as the whole network.",
            args=arguments,
            config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
        )
    except LottoError as error:
        errors.print(f"[bold red]lotto:[/] {escape(str(error))}", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("Stopped. Finished trainings are kept; the same command goes on from here.")
        sys.exit(130)


if __name__ == "__main__":
    main()
