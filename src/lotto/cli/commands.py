"""The commands by name, and how one is chosen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import tyro
from rich.logging import RichHandler

from lotto.cli.bench_command import bench
from lotto.cli.claims_command import claims
from lotto.cli.data_command import data
from lotto.cli.export_command import export
from lotto.cli.imp_command import imp
from lotto.cli.power_command import power
from lotto.cli.recipes_command import list_recipes
from lotto.cli.report_command import report
from lotto.cli.run_command import run
from lotto.cli.screen import errors
from lotto.cli.store_command import store

COMMANDS: dict[str, Callable[..., None]] = {
    "imp": imp,
    "power": power,
    "run": run,
    "claims": claims,
    "data": data,
    "recipes": list_recipes,
    "report": report,
    "export": export,
    "store": store,
    "bench": bench,
}


def run_command(arguments: Sequence[str] | None) -> None:
    """Read the arguments and run the command that they name; warnings go to standard error."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=errors, show_path=False, show_time=False)],
    )
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # that it has no cache of fonts is no concern of ours
    tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="lotto",
        description="Find winning tickets: sparse subnetworks that train as well as the whole network.",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
    )
