"""Libraries of other people that an extra installs, imported by what needs them."""

from importlib import import_module
from types import ModuleType

from metantk_nas.errors import UsageError


def library(name: str, *, extra: str) -> ModuleType:
    """Import a library that an extra installs.

    Args:
        name: what it is imported as.
        extra: the extra of this package that installs it.

    Raises:
        UsageError: it is not installed; names the extra.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            f"this needs {name}, which cannot be imported ({error}); pip install 'metantk-nas[{extra}]' installs it."
        ) from error
