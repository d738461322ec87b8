"""Statistics of a few replicates: bounds of means, verdicts, corrections for several tests, how many are needed.

Pure mathematics: numbers in, numbers and verdicts out.
"""

from lotto.core.statistics.matching import Match, confidence_per_look, leading_matches, match
from lotto.core.statistics.means import CONFIDENCE, Verdict, bound, decide, holm, interval, p_value
from lotto.core.statistics.mistakes import discordant, mcnemar, sampling_variance
from lotto.core.statistics.power import POWER, power_of, replicates_needed

__all__ = [
    "CONFIDENCE",
    "POWER",
    "Match",
    "Verdict",
    "bound",
    "confidence_per_look",
    "decide",
    "discordant",
    "holm",
    "interval",
    "leading_matches",
    "match",
    "mcnemar",
    "p_value",
    "power_of",
    "replicates_needed",
    "sampling_variance",
]
