"""The commands by name, and how one is chosen."""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version

import tyro
from rich.logging import RichHandler

from lotto.cli.config import OPTION, with_config
from lotto.cli.screen import errors, say

COMMANDS = {
    "imp": "Find winning tickets: iterative magnitude pruning with rewinding.",
    "power": "Count the replicates that decide whether a level matches, from the dense network alone.",
    "run": "Run an experiment of the papers: stabilizing.distances, unmasking.connectivity, ... or unmasking.all.",
    "claims": "Decide the claims of a paper from stored results.",
    "data": "Download a data set or pretrained weights into the cache, or list what there is.",
    "recipes": "List the presets, and the recipes of installed packages.",
    "ls": "List the results below a folder, a line each: recipe, density reached, verdict, date.",
    "report": "Make report.html again from a folder of results, or one page that compares several; print the table.",
    "export": "Write the trained ticket of a result as a program of torch, and measure it.",
    "store": "Look at what is remembered, verify it, remove what is of no use, compare two runs, take it elsewhere.",
    "work": "Work on the queue of a store: take jobs that `--backend queue` has put there, on whichever machine.",
    "slurm": "Submit workers of a store's queue to Slurm as one array; `--backend queue` gives them jobs.",
    "bench": "Measure speed as ratios within one run, pair by pair.",
}
"""The first lines of the commands' docstrings: enough to list them without importing any."""

HELP = ("-h", "--help")
Command = Callable[..., None]


def command(name: str) -> Command:
    """The function of a command: NAME in the module ``NAME_command``."""
    found: Command = getattr(import_module(f"lotto.cli.{name}_command"), name)
    return found


def run_command(arguments: Sequence[str] | None) -> None:
    """Read the arguments and run the command that they name; warnings go to standard error."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=errors, show_path=False, show_time=False)],
    )
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # that it has no cache of fonts is no concern of ours
    given = sys.argv[1:] if arguments is None else [*arguments]
    if given == ["--version"]:
        say(f"lotto {version('lotto-tickets')}, torch {version('torch')}, Python {platform.python_version()}")
        return
    if "RANK" in os.environ and not _leads():
        return
    if (name := next(iter(given), "")) in COMMANDS and any(word.startswith(OPTION) for word in given):
        given = [name, *with_config(name, command(name), given[1:])]
    tyro.extras.subcommand_cli_from_dict(
        {name: command(name) if _is_asked_for(name, given) else _listed(name) for name in COMMANDS},
        prog="lotto",
        description="Find winning tickets: sparse subnetworks that train as well as the whole network.",
        args=given,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
    )


def _leads() -> bool:
    """Whether this process runs the command: the first of those that `torchrun` has started, which all others serve."""
    from lotto.core.ranks import Launch, joined

    if Launch.here() is None:
        return True
    ranks = joined()
    if not ranks.rank:
        return True
    from lotto.cli.stopping import stopping
    from lotto.core.errors import WorkerError
    from lotto.execution.torchrun import serve

    stopping.silent = True
    try:
        serve()
    except WorkerError as error:
        if ranks.peers.speaks:
            raise
        raise SystemExit(1) from error
    return False


def _is_asked_for(name: str, given: Sequence[str]) -> bool:
    """Whether the options of a command are needed: those of the one that is typed first, or of all.

    An option that is typed first is of one of them and misplaced, or tyro's, with which shells learn all of them.
    """
    first = next(iter(given), "")
    return first == name or (first.startswith("-") and first not in HELP)


def _listed(name: str) -> Command:
    """What stands for a command that others are chosen beside."""

    def listed() -> None:
        command(name)()

    listed.__doc__ = COMMANDS[name]
    return listed
