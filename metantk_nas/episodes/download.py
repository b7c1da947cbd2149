"""Original files of public data sets: found where they lie, or fetched with a checksum."""

import hashlib
import http.client
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metantk_nas.episodes.request import LoadRequest, user_cache
from metantk_nas.errors import DataError

TIMEOUT = 30.0  # seconds without a byte before the network counts as gone
_CHUNK = 1 << 18  # bytes


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be fetched.

    Args:
        name: name it is stored under.
        url: its address.
        md5: its published checksum; where there is none, ``None``, and the SHA-256 of what arrived is written
            beside the file as ``<name>.sha256``.
    """

    name: str
    url: str
    md5: str | None = None


def find_or_fetch(dataset: str, names: Sequence[str], remote: RemoteFile, request: LoadRequest) -> Path:
    """Path of an original: the first of ``names`` (files or folders) that exists, else ``remote``, downloaded.

    Args:
        dataset: name of the data set, and of its sub-directory of the data root.
        names: acceptable names, best first.
        remote: what to fetch when none of them is there.
        request: data root, whether downloads are allowed, progress.

    Raises:
        DataError: nothing is there and it cannot be fetched.
    """
    folders = data_folders(dataset, request)
    for path in (folder / name for folder in folders for name in names):
        if path.exists():
            return path
    target = folders[0] / remote.name
    if not request.download:
        raise DataError(_by_hand(f"{dataset}: none of {', '.join(names)} is in {folders[-1]}", remote, target))
    fetch(remote, target, request)
    return target


def data_folders(dataset: str, request: LoadRequest) -> list[Path]:
    """Where the originals of a data set may lie: in the data root's sub-directory of that name, or in the root itself.

    Raises:
        DataError: the data root is not a directory.
    """
    root = request.data_root or user_cache() / "data"
    if request.data_root is not None and not root.is_dir():
        raise DataError(f"data root {root} is not a directory; create it, or name the one that holds {dataset!r}.")
    return [root / dataset, root] if request.data_root else [root / dataset]


def fetch(remote: RemoteFile, target: Path, request: LoadRequest) -> None:
    """Download one file; ``target`` appears only when all of it has arrived and its checksum is right.

    Raises:
        DataError: no network, an answer other than the file, a download cut short, a wrong checksum, a full disk.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}-") as folder:
            part = Path(folder, target.name)
            md5, sha256 = _download(remote, part, request)
            if remote.md5 not in {None, md5}:
                raise DataError(_by_hand(f"{remote.url} arrived with md5 {md5}, expected {remote.md5}", remote, target))
            if remote.md5 is None:
                target.with_name(f"{target.name}.sha256").write_text(f"{sha256}  {target.name}\n")
            part.replace(target)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # this answer still holds its connection
        raise DataError(_by_hand(f"{remote.url} could not be downloaded ({error})", remote, target)) from error


def _download(remote: RemoteFile, path: Path, request: LoadRequest) -> tuple[str, str]:
    """Copy the remote file to ``path`` and return the MD5 and SHA-256 of what came."""
    md5, sha256, done = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    connection = urllib.request.urlopen(remote.url, timeout=TIMEOUT)  # noqa: S310 (addresses are constants)
    with connection as response, path.open("wb") as file:
        total = int(response.headers.get("Content-Length", 0))
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            md5.update(chunk)
            sha256.update(chunk)
            done += len(chunk)
            request.report(f"downloading {remote.name}", done, total)
    if done < total:
        raise OSError(f"cut short after {done} of {total} bytes")
    return md5.hexdigest(), sha256.hexdigest()


def _by_hand(problem: str, remote: RemoteFile, target: Path) -> str:
    checksum = f" (md5 {remote.md5})" if remote.md5 else ""
    return (
        f"{problem}. Fetch {remote.url}{checksum} on a machine with a network, put it at {target}, and try again; "
        "or name the directory that holds it with --data-root."
    )
