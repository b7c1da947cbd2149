"""What other distributions add: search spaces, metrics and learners, by entry points that are read when wanted.

A distribution that has, in its metadata, an entry point ``name = package:object`` in a group of `GROUPS` adds what the
object is; ``importlib.metadata`` finds it wherever the distribution is installed. One that cannot be loaded is told of
and passed over.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from metantk_nas.errors import UsageError, unknown_name

SPACES, METRICS, LEARNERS = GROUPS = ("metantk_nas.spaces", "metantk_nas.metrics", "metantk_nas.learners")
"""Groups of entry points; `metantk_nas.spaces.load`, `metantk_nas.scorers.registry` and
`metantk_nas.learners.registry` say what their objects are."""

T = TypeVar("T")

Read = Callable[[str, Any], Mapping[str, T]]
"""(name of the entry point, its object) → entries by name; raises UsageError with what was expected."""


class Registry(Mapping[str, T]):
    """Entries of this package, then those of plug-ins, which are read when a name is not found or all are asked for.

    No plug-in replaces an entry that is there already.

    Args:
        group: one of `GROUPS`.
        built_in: entries of this package.
        read: what a plug-in's object becomes.
    """

    def __init__(self, group: str, built_in: Mapping[str, T], read: Read[T]) -> None:
        self._group, self._built_in, self._read = group, built_in, read

    def __getitem__(self, name: str) -> T:
        return self._built_in[name] if name in self._built_in else self._found[0][name]

    def __iter__(self) -> Iterator[str]:
        yield from self._built_in
        yield from self._found[0]

    def __len__(self) -> int:
        return len(self._built_in) + len(self._found[0])

    @property
    def plugged_in(self) -> Mapping[str, T]:
        """The entries of plug-ins alone."""
        return self._found[0]

    @property
    def broken(self) -> tuple[str, ...]:
        """A sentence for each plug-in that could not be loaded."""
        return tuple(self._found[1])

    def not_found(
        self, kind: str, name: str, error: type[UsageError] = UsageError, *, also: Iterable[str] = ()
    ) -> UsageError:
        """Build the error for a name that is not there, with what is, and with the plug-ins that are broken.

        Args:
            kind: what the name stands for.
            name: what was asked for.
            error: class of the error.
            also: further names that would do.
        """
        return error(" ".join([str(unknown_name(kind, name, {*self, *also}, error)), *self.broken]))

    @cached_property
    def _found(self) -> tuple[dict[str, T], list[str]]:
        """Entries of plug-ins, and what is wrong with the others."""
        entries: dict[str, T] = {}
        broken: list[str] = []
        for point in sorted(entry_points(group=self._group), key=lambda each: (each.name, each.value)):
            try:
                found = self._read(point.name, point.load())
                if taken := [name for name in found if name in self._built_in or name in entries]:
                    raise UsageError(f"{', '.join(taken)} is there already; expected a name of its own")
                entries |= found
            except Exception as error:  # a stranger's code may raise anything; the others go on
                broken.append(f"Plug-in {_describe(point)} is left out ({type(error).__name__}: {error}).")
        return entries, broken


def _describe(point: EntryPoint) -> str:
    """Name an entry point by its name, its object and the distribution to mend or remove."""
    owner = f" of the distribution {point.dist.name} {point.dist.version}" if point.dist else ""
    return f"{point.name!r} ({point.value}){owner}, group {point.group},"
