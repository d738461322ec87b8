"""Masks and loops of other libraries: each module is imported when it is asked for."""
