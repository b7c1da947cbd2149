"""Errors that teach: what went wrong, what was got, what was expected, what to do next.

`UsageError` is for input that the caller can mend; the command line turns it into exit code 2.
Every other `MetaNTKError` ends a run with exit code 1 and its one-line reason.
"""

import difflib
import reprlib
from collections.abc import Iterable

MAX_SHOWN = 200
"""Characters of a text that somebody else wrote which a message repeats."""


class MetaNTKError(Exception):
    """Base of all errors raised on purpose by this package."""

    exit_code = 1


class UsageError(MetaNTKError, ValueError):
    """Input that the caller can mend: an unknown name, a malformed file, an impossible request."""

    exit_code = 2


class SpaceError(UsageError):
    """A search space that is unknown, malformed or inconsistent."""


class GenotypeError(UsageError):
    """An architecture text that does not parse or does not belong to its space."""


class DataError(UsageError):
    """Images that are missing, unreadable or too few for the episodes asked for."""


class RunError(UsageError):
    """A run directory that is not what the command expects."""


class ShapeError(MetaNTKError, ValueError):
    """Tensors whose shapes contradict each other."""


class _Brief(reprlib.Repr):
    """Shows values in little room."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = MAX_SHOWN
        self.maxlist = self.maxtuple = self.maxdict = 12

    def repr_int(self, x: int, level: int) -> str:
        """Write a number; Python refuses to write thousands of digits."""
        return super().repr_int(x, level) if x.bit_length() < 2_000 else f"a number of {x.bit_length():,} bits"


brief = _Brief().repr
"""``repr``, cut in the middle where it is long: messages repeat what was got, and it may be a whole file."""


def brief_text(text: object) -> str:
    """``str``, cut at its end where it is long."""
    words = str(text)
    return words if len(words) <= 2 * MAX_SHOWN else f"{words[: 2 * MAX_SHOWN]}…"


def unknown_name(kind: str, got: str, available: Iterable[str], error: type[UsageError] = UsageError) -> UsageError:
    """Build the error for a name that is not registered, naming the near miss.

    Args:
        kind: what the name stands for, for example ``"space"``.
        got: the name that was not found.
        available: the names that exist.
        error: class of the error to build.
    """
    names = sorted(available)
    message = f"{kind} {brief(got)} not found; available: {', '.join(names)}."
    near = difflib.get_close_matches(got[:MAX_SHOWN], names, n=1, cutoff=0.5)
    return error(f"{message} Did you mean {near[0]!r}?" if near else message)
