import errno
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from metantk_nas.episodes import cifar_fs, download, omniglot
from metantk_nas.episodes.download import RemoteFile, fetch
from metantk_nas.episodes.load import load_dataset
from metantk_nas.episodes.request import LoadRequest
from metantk_nas.errors import DataError
from tests.episodes.images import write_folder, write_zip
from tests.episodes.test_cifar_fs import small_cifar
from tests.episodes.test_omniglot import small_omniglot

CONTENT = bytes(range(256)) * 3000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Site(BaseHTTPRequestHandler):
    """Serves the files of a folder; what is named ``cut…`` breaks off half-way, ``stuck…`` never comes."""

    def __init__(self, folder: Path, gate: threading.Event, *args: object) -> None:
        self.folder, self.gate = folder, gate
        super().__init__(*args)  # type: ignore[arg-type]  # the server passes request, address and itself

    def do_GET(self) -> None:
        path = self.folder / self.path.lstrip("/")
        if self.path.startswith("/stuck"):
            self.gate.wait(20)
            return
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.path.startswith("/cut") else content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the base class's)
        """Keep quiet."""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a local server of ``tmp_path / "site"``."""
    monkeypatch.setenv("no_proxy", "*")
    write_folder(tmp_path / "site", {"good.bin": CONTENT, "cut.bin": CONTENT})
    gate = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, tmp_path / "site", gate))
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    gate.set()
    server.shutdown()
    thread.join()
    server.server_close()


def refused(remote: RemoteFile, target: Path) -> str:
    """The message of a download that fails; nothing may be left where it should have gone."""
    with pytest.raises(DataError) as error:
        fetch(remote, target, LoadRequest(image_size=8))
    assert not target.parent.is_dir() or list(target.parent.iterdir()) == []
    return str(error.value)


def test_a_good_download_arrives_whole_with_progress(site: str, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    request = LoadRequest(image_size=8, progress=lambda *state: seen.append(state))
    target = tmp_path / "data" / "good.bin"
    fetch(RemoteFile("good.bin", f"{site}good.bin", MD5), target, request)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["good.bin"]
    assert seen[-1] == ("downloading good.bin", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_without_a_known_checksum_the_sha256_is_recorded(site: str, tmp_path: Path) -> None:
    target = tmp_path / "data" / "good.bin"
    fetch(RemoteFile("good.bin", f"{site}good.bin"), target, LoadRequest(image_size=8))
    recorded = (tmp_path / "data" / "good.bin.sha256").read_text()
    assert recorded == f"{hashlib.sha256(CONTENT).hexdigest()}  good.bin\n"


def test_a_wrong_checksum_is_refused(site: str, tmp_path: Path) -> None:
    message = refused(RemoteFile("good.bin", f"{site}good.bin", "0" * 32), tmp_path / "data" / "good.bin")
    assert f"arrived with md5 {MD5}, expected {'0' * 32}" in message


def test_a_download_cut_short_is_refused(site: str, tmp_path: Path) -> None:
    message = refused(RemoteFile("cut.bin", f"{site}cut.bin"), tmp_path / "data" / "cut.bin")
    assert f"cut short after {len(CONTENT) // 2} of {len(CONTENT)} bytes" in message


def test_a_file_that_is_gone_is_named(site: str, tmp_path: Path) -> None:
    message = refused(RemoteFile("gone.bin", f"{site}gone.bin"), tmp_path / "data" / "gone.bin")
    assert "404" in message


def test_a_server_that_hangs_is_given_up(site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    assert "timed out" in refused(RemoteFile("x", f"{site}stuck.bin"), tmp_path / "data" / "x")


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    target = tmp_path / "data" / "good.bin"
    message = refused(RemoteFile("good.bin", "http://127.0.0.1:9/good.bin", MD5), target)
    assert "http://127.0.0.1:9/good.bin could not be downloaded" in message
    assert f"Fetch http://127.0.0.1:9/good.bin (md5 {MD5})" in message
    assert f"put it at {target}" in message
    assert "--data-root" in message


def test_a_full_disk_is_named(site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    message = refused(RemoteFile("good.bin", f"{site}good.bin", MD5), tmp_path / "data" / "good.bin")
    assert "No space left on device" in message


def test_a_folder_that_cannot_be_made_is_named(site: str, tmp_path: Path) -> None:
    (tmp_path / "in the way").write_text("a file where a folder should be")
    message = refused(RemoteFile("good.bin", f"{site}good.bin"), tmp_path / "in the way" / "good.bin")
    assert "File exists" in message


def test_missing_omniglot_is_fetched_once(site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_omniglot(tmp_path / "site")
    for part in ("BACKGROUND", "EVALUATION"):
        name = getattr(omniglot, part).name
        md5 = hashlib.md5((tmp_path / "site" / "omniglot" / name).read_bytes()).hexdigest()
        monkeypatch.setattr(omniglot, part, RemoteFile(name, f"{site}omniglot/{name}", md5))
    root = tmp_path / "root"
    root.mkdir()
    fetched = load_dataset("omniglot", image_size=8, data_root=root)
    assert sorted(path.name for path in (root / "omniglot").iterdir()) == [
        "images_background.zip",
        "images_evaluation.zip",
    ]
    again = load_dataset("omniglot", image_size=8, data_root=root, download=False)
    assert again.fingerprint == fetched.fingerprint


def test_missing_cifar_fs_goes_to_the_users_cache(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user_cache_of_the_test: Path
) -> None:
    write_zip(tmp_path / "site" / "cifar100.zip", small_cifar())
    monkeypatch.setattr(cifar_fs, "ARCHIVE", RemoteFile("cifar100.zip", f"{site}cifar100.zip"))
    load_dataset("cifar_fs", image_size=8)
    assert sorted(path.name for path in (user_cache_of_the_test / "data" / "cifar_fs").iterdir()) == [
        "cifar100.zip",
        "cifar100.zip.sha256",
    ]
