"""Tables, plots and one-file HTML reports: they read results and never train."""

from __future__ import annotations

from lotto.report.claims import console_claims
from lotto.report.comparison import write_comparison
from lotto.report.experiments import readable, save_experiment, write_experiments
from lotto.report.html import write_report
from lotto.report.inference import export_table, what_pays
from lotto.report.save import load_result, save_result
from lotto.report.table import adaptive_summary, console_table, frame_table

__all__ = [
    "adaptive_summary",
    "console_claims",
    "console_table",
    "export_table",
    "frame_table",
    "load_result",
    "readable",
    "save_experiment",
    "save_result",
    "what_pays",
    "write_comparison",
    "write_experiments",
    "write_report",
]
