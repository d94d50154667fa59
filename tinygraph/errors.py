"""What can go wrong, by name.  Messages state the fact first, then what to write instead."""

from __future__ import annotations


class ShapeError(ValueError):
    """Sizes that must agree do not."""


class MissingInputError(Exception):
    """A compiled function needs a variable that is neither an input nor shared."""


class UnusedInputError(Exception):
    """An input of a compiled function is not used, or is given twice."""


class DisconnectedInputError(ValueError):
    """A gradient is asked with respect to a variable on which the cost does not depend."""


class NotDifferentiableError(TypeError):
    """A gradient is asked for that an op does not have."""


class NotScalarError(TypeError):
    """A cost must be a scalar."""


class NotScalarConstantError(Exception):
    """A number is asked of a variable that is no constant, or of several elements."""


class CheckError(AssertionError):
    """``check=True`` found that native code and the interpreter disagree, or a nan."""


class NotFiniteError(AssertionError):
    """``nan_guard`` found a nan or an infinity in what a call computed."""


class UnavailableError(RuntimeError):
    """A back end cannot run on this machine; the message says what is missing."""


class InternalError(RuntimeError):
    """A broken promise inside tinygraph: please report it."""
