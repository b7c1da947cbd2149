"""Files below a folder or inside a zip archive, read the same way; nothing is ever unpacked to disk."""

import os
import zipfile
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from metantk_nas.episodes.source import AbstractSource, files_signature
from metantk_nas.errors import DataError


class AbstractTree(AbstractSource):
    """A set of files, named by their path relative to the top, with ``/`` between the parts."""

    @abstractmethod
    def names(self) -> list[str]:
        """Names of all files, sorted; hidden files and names that lead outside are left out."""


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
        return self._files[name].read_bytes()

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
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(
                f"{path} cannot be read as a zip archive ({error}); it is truncated or none: "
                "delete it and fetch it again, or give a folder."
            ) from error

    def names(self) -> list[str]:
        """See :class:`AbstractTree`."""
        return sorted({name for name in self._archive.namelist() if not name.endswith("/") and _is_plain(name)})

    def read(self, name: str) -> bytes:
        """See :class:`AbstractSource`."""
        return self._archive.read(name)

    def signature(self) -> str:
        """See :class:`AbstractSource`."""
        return files_signature(self.path, {"": self.path})


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
