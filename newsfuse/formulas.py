"""Formulas: what a spreadsheet works out, or runs, instead of showing it."""

BEGINNINGS = frozenset("=+-@\uff1d\uff0b\uff0d\uff20")
"""What one begins with; the last four where one writes in Japanese."""


def is_formula(text: str) -> bool:
    """Whether a spreadsheet would take the text for one."""
    return text[:1] in BEGINNINGS
