"""Where original images are read from: files, rows of arrays, rows of tables."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from metantk_nas.episodes.dataset import Images


class AbstractSource(ABC):
    """Original images, read by name.

    Args:
        path: the folder, archive or file that they are in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Content of one image file.

        Raises:
            OSError, zipfile.BadZipFile, zlib.error, RuntimeError, LookupError: it cannot be read.
        """

    @abstractmethod
    def signature(self) -> str:
        """Changes when the images do: a hash of path, sizes and modification times."""


class RowSource(AbstractSource):
    """Images that lie row by row in arrays or tables, named ``<part>/<row>``.

    Args:
        path: what decoded images are kept under.
        parts: per part, what gives a row: an encoded image, or pixels uint8 ``[height, width]`` or
            ``[height, width, channel]`` with one or three channels.
        signature: changes when the rows do.
    """

    def __init__(self, path: Path, parts: Mapping[str, Callable[[int], bytes | Images]], signature: str) -> None:
        super().__init__(path)
        self._parts = parts
        self._signature = signature

    def read(self, name: str) -> bytes:
        """See :class:`AbstractSource`; pixels come as a PNM file, which holds them as they are."""
        part, _, row = name.rpartition("/")
        image = self._parts[part](int(row))
        return image if isinstance(image, bytes) else _as_pnm(image)

    def signature(self) -> str:
        """See :class:`AbstractSource`."""
        return self._signature


class JoinedSource(AbstractSource):
    """Several sources as one; every name begins with the name of the file or folder that it lies in.

    Args:
        sources: the sources, all in one folder.
    """

    def __init__(self, sources: Sequence[AbstractSource]) -> None:
        super().__init__(sources[0].path.parent)
        self._sources = {source.path.name: source for source in sources}

    def read(self, name: str) -> bytes:
        """See :class:`AbstractSource`."""
        top, _, rest = name.partition("/")
        return self._sources[top].read(rest)

    def signature(self) -> str:
        """See :class:`AbstractSource`."""
        return "/".join(source.signature() for source in self._sources.values())


def files_signature(path: Path, files: Mapping[str, Path]) -> str:
    """Hash of a path and of the names, sizes and modification times of files."""
    digest = hashlib.blake2b(str(path.resolve()).encode(), digest_size=16)
    for name, file in files.items():
        facts = file.stat()
        digest.update(f"{name}/{facts.st_size}/{facts.st_mtime_ns}".encode())
    return digest.hexdigest()


def _as_pnm(pixels: Images) -> bytes:
    height, width = pixels.shape[:2]
    kind = "P6" if pixels.shape[2:] == (3,) else "P5"
    return f"{kind} {width} {height} 255\n".encode() + pixels.tobytes()
