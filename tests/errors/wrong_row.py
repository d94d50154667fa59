"""A row of the corpus."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A program that is wrong, and what is said of it.

    text   the program; the message must name each line that ends with ``#!``
    error  the name of the exception;  says: phrases of its message
    mend   (wrong, right): the replacement that makes the program run
    """

    name: str
    error: str
    text: str
    says: tuple[str, ...]
    mend: tuple[str, str]
