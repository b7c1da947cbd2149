"""What a caller asks of a data set, whichever it is."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Progress = Callable[[str, int, int], None]
"""Called as ``progress(label, done, total)`` while work goes on; ``total`` is 0 where it is not known."""


def user_cache() -> Path:
    """This package's folder in the user's cache: ``$XDG_CACHE_HOME`` or ``~/.cache``, then ``metantk-nas``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metantk-nas"


@dataclass(frozen=True)
class LoadRequest:
    """The arguments that every data set understands.

    Args:
        image_size: height and width of the images wanted, in pixels.
        data_root: where the originals lie, in this directory or in its sub-directory named like the data set;
            ``None`` for ``<user cache>/metantk-nas/data``.
        cache_dir: where decoded images are kept; ``None`` for ``<user cache>/metantk-nas/images``.
        seed: seed of everything random about the data set.
        download: whether missing originals may be fetched.
        progress: told how far long work is.
    """

    image_size: int
    data_root: Path | None = None
    cache_dir: Path | None = None
    seed: int = 0
    download: bool = True
    progress: Progress | None = None

    def report(self, label: str, done: int, total: int) -> None:
        """Tell the caller how far ``label`` is, if the caller wants to know."""
        if self.progress is not None:
            self.progress(label, done, total)
