"""Experiments, the claims that their rows decide, and results on disk; names no paper."""
