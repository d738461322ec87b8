"""Whether functions can be compiled here: without numba, torch's operators do the same work."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec


@cache
def can_compile() -> bool:
    """Looked up once: it is asked in every step, and where numba is missing the search goes through all folders."""
    return find_spec("numba") is not None
