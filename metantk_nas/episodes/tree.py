"""Files below a folder or inside a zip archive, read the same way; nothing is ever unpacked to disk."""

import os
import zipfile
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from metantk_nas.episodes.source import AbstractSource, files_signature
from metantk_nas.errors import DataError, brief_text
from metantk_nas.safe_pickle import BROKEN

MAX_BYTES = 1 << 28
"""Of one file, unpacked: a few bytes of an archive may stand for gigabytes."""


class AbstractTree(AbstractSource):
    """A set of files, named by their path relative to the top, with ``/`` between the parts."""

    @abstractmethod
    def names(self) -> list[str]:
        """Names of all files, sorted; hidden files and names that lead outside are left out."""

    def read_text(self, name: str) -> str:
        """Content of a file of text; letters that are none are replaced.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return self.read(name).decode("utf-8-sig", errors="replace")
        except BROKEN as error:
            reason = brief_text(error) or type(error).__name__
            raise DataError(f"{self.path}: {brief_text(name)} cannot be read ({reason}); mend or remove it.") from error


class FolderTree(AbstractTree):
    """Files below a folder. Links are followed at the top level only, so that no loop of links can trap us."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._files = {str(PurePosixPath(file.relative_to(path))): file for file in _walk(path)}

    def names(self) -> list[str]:
        """See :class:`AbstractTree`."""
        return sorted(name for name in self._files if _is_plain(name))

    def read(self, name: str) -> bytes:
        """See :class:`AbstractSource`."""
        with self._files[name].open("rb") as file:
            return _read_some(file)

    def signature(self) -> str:
        """See :class:`AbstractSource`."""
        return files_signature(self.path, {name: self._files[name] for name in self.names()})


class ZipTree(AbstractTree):
    """Members of a zip archive, decompressed in memory when they are read.

    Raises:
        DataError: the archive is truncated or is no zip archive.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._archive = open_zip(path)

    def names(self) -> list[str]:
        """See :class:`AbstractTree`."""
        return sorted({name for name in self._archive.namelist() if not name.endswith("/") and _is_plain(name)})

    def read(self, name: str) -> bytes:
        """See :class:`AbstractSource`."""
        with self._archive.open(name) as file:
            return _read_some(file)

    def signature(self) -> str:
        """See :class:`AbstractSource`."""
        return files_signature(self.path, {"": self.path})


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip archive to be read.

    Raises:
        DataError: it is truncated or is no zip archive.
    """
    try:
        return zipfile.ZipFile(path)
    except BROKEN as error:
        raise DataError(
            f"{path} cannot be read as a zip archive ({brief_text(error)}); it is truncated or none: "
            "delete it and fetch it again, or give a folder."
        ) from error


def open_tree(path: Path) -> AbstractTree:
    """The files below a folder or inside a zip archive.

    Raises:
        DataError: the path does not exist, cannot be listed, or is neither a folder nor a zip archive.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; expected a folder or a zip archive of images.")
    try:
        return FolderTree(path) if path.is_dir() else ZipTree(path)
    except PermissionError as error:
        raise DataError(f"{path} may not be read ({error}); change its permissions.") from error


def _read_some(file: IO[bytes]) -> bytes:
    """Read a file that is not too large.

    Raises:
        OSError: it is.
    """
    content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(f"it has more than {MAX_BYTES:,} bytes")
    return content


def _walk(top: Path) -> Iterator[Path]:
    for entry in sorted(top.iterdir()):
        if entry.is_dir():
            for folder, _, files in os.walk(entry, onerror=_fail):
                yield from (file for file in (Path(folder, name) for name in files) if file.is_file())
        elif entry.is_file():
            yield entry


def _fail(error: OSError) -> None:
    """Stop at a folder that may not be listed, where ``os.walk`` would pass over it in silence."""
    raise error


def _is_plain(name: str) -> bool:
    """Whether a name stays inside its tree and is not hidden (``.DS_Store``, ``__MACOSX/``, …)."""
    parts = name.split("/")
    return (
        "\\" not in name
        and ":" not in parts[0]
        and not any(part in {"", "__MACOSX"} or part.startswith(".") for part in parts)
    )
