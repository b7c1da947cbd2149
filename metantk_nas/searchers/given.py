"""A search that is no search: a list of architectures, asked in its order."""

from collections.abc import Sequence

from metantk_nas.searchers.base import AbstractSearcher, Told
from metantk_nas.spaces.subspace import Architecture


class GivenSearcher(AbstractSearcher):
    """Asks for the architectures it was given; scores do not matter to it."""

    def __init__(self, architectures: Sequence[Architecture]) -> None:
        self._architectures = list(architectures)
        self._n_asked = 0

    def ask(self, n: int) -> list[Architecture]:
        """Return the next ``n`` of the list."""
        asked = self._architectures[self._n_asked : self._n_asked + n]
        self._n_asked += len(asked)
        return asked

    def tell(self, architecture: Architecture, found: Told | None) -> None:
        """Learn nothing."""

    @property
    def total(self) -> int:
        """Length of the list."""
        return len(self._architectures)
