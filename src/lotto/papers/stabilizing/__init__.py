"""*Stabilizing the Lottery Ticket Hypothesis*, and its successor, *Linear Mode Connectivity*."""
