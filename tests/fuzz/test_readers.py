"""Whatever a file holds, a reader reads it or says what is wrong with it; `campaign` tries thousands of inputs more."""

import io
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metantk_nas.episodes import decode, tree
from tests.episodes.images import encode, noise
from tests.fuzz.guard import attempt
from tests.fuzz.mutations import KINDS, Step, damaged
from tests.fuzz.readers import PIXELS, READERS

SHARE = st.floats(0, 1, exclude_max=True)
STEPS = st.lists(st.builds(Step, st.sampled_from(sorted(KINDS)), SHARE, SHARE, st.integers(0, 1_023)), max_size=4)
PATIENT = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("name", READERS)
def test_a_reader_reads_or_says_what_is_wrong(name: str, folder: Path) -> None:
    reader = READERS[name]
    seeds = reader.seeds()

    @settings(
        max_examples=reader.examples, deadline=None, derandomize=True, database=None, suppress_health_check=PATIENT
    )
    @given(st.one_of(st.binary(max_size=200), st.builds(damaged, st.sampled_from(seeds), STEPS, st.just(seeds))))
    def try_one(content: bytes) -> None:
        attempt(reader, content, folder)

    try_one()


@pytest.mark.parametrize("name", READERS)
def test_what_the_package_writes_is_read(name: str, folder: Path) -> None:
    assert any(attempt(READERS[name], content, folder) for content in READERS[name].seeds())


def npz(**arrays: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def npy_with_header(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def zip_with(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


def half_a_rank(content: bytes) -> bytes:
    names, *lines = content.decode().splitlines()
    place = names.split(",").index("pareto")
    rows = [[*cells[:place], "1.5", *cells[place + 1 :]] for cells in (line.split(",") for line in lines)]
    return "\n".join([names, *map(",".join, rows)]).encode()


def tar_with(name: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return stream.getvalue()


HUGE_NUMBER = b"0x" + b"f" * 5_000
FOUND = {
    "architecture": [
        b'{"cell":' + b"[" * 5_000,  # RecursionError
        b'{"cell":{"0<0":[["none"]]}}',  # TypeError: unhashable
        b'{"cell":{' + b'"0<0":["none"],' * 500 + b"}}",  # 7,500 characters in the message
        b"Genotype(" + b"(a," * 199,  # MemoryError of Python's parser
    ],
    "architecture_list": [b"\xff\xfe"],
    "search_space": [
        READERS["search_space"].seeds()[2].replace(b"n_nodes = 3", b"n_nodes = " + HUGE_NUMBER),
        b'"' + b"x" * 10_000 + b'" = 1',  # the name stood in the message as it was
    ],
    "run_file": [
        b"n_way = " + HUGE_NUMBER,
        b"searcher_settings = { since = 1979-05-27 }",
        b"searcher_settings = { population = " + HUGE_NUMBER + b" }",
        b"n_way = " + b"[" * 5_000,
        b"x" * 10_000 + b" = 1",
        b".".join([b"a"] * 60_000) + b" = 1",  # ten seconds and more
    ],
    "option": [b"a=" + b"[" * 60_000, b"9" * 400],
    "ranking": [
        READERS["ranking"].seeds()[0].replace(b",9000,", b"," + b"9" * 400 + b","),
        half_a_rank(READERS["ranking"].seeds()[0]),
    ],
    "manifest": [
        b'{"schema_version": 1, "spec": []}',
        b'{"schema_version": 1, "spec": ' + b"[" * 100_000,
        b'{"schema_version": ' + b"[1," * 500 + b"1" + b"]" * 500 + b"}",
        json.dumps({"schema_version": 1, "spec": {"inner_time": "1", "devices": 3, "device": "auto"}}).encode(),
    ],
    "truth": [
        b"arch," + b"a" * 5_000 + b"\n|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,inf\n",
        b"arch,accuracy\nconv4,1\n",  # a row without an architecture
        b"arch," + b"accuracy," * 50_000,
        b".".join([b"a"] * 2_000) + b"\n1",
    ],
    "score_store": [READERS["score_store"].seeds()[0].replace(b"metantk", b"met\xffntk")],
    "image_cache": [
        npy_with_header(b"{'descr': (("),  # TokenError
        npy_with_header(b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"9" * 30 + b",), }\n"),
        READERS["image_cache"].seeds()[1],  # TypeError: an array is no archive
        npz(pixels=PIXELS[:, :2], n_images=np.array([3]), classes=np.array(["base/a"]), skipped=np.empty((0, 2), "U1")),
    ],
    "pickled_set": [pickle.dumps({"x" * 60_000: 1, "labels": 2})],
    "benchmark": [
        pickle.dumps({"arch2infos": {}}),
        zip_with("archive/data.pkl", b"").replace(
            bytes(4) + b"!", b"\x63\x00" + bytes(2) + b"!"
        ),  # strange compression
    ],
    "learner": [tar_with("storages"), tar_with("../../escape")],  # PyTorch would unpack them
    "checkpoint": [tar_with("storages")],
    "pickled": [b"]r\xff\xff\xff\x0f." + bytes(n) for n in range(4)],  # gigabytes, for one of the two readers
}
"""Inputs that crashed once, or said too much, by reader."""


@pytest.mark.parametrize(("name", "content"), [(name, content) for name in FOUND for content in FOUND[name]])
def test_what_was_found_stays_mended(name: str, content: bytes, folder: Path) -> None:
    attempt(READERS[name], content, folder)


def zipped(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        for label in "abcde":
            archive.writestr(f"{label}/image.png", encode(noise(6, 6)))
    return stream.getvalue()


@pytest.mark.parametrize("name", ["a/bomb.png", "train.csv", "base.txt"])
def test_a_member_that_unpacks_to_too_much_is_not_unpacked(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "MAX_BYTES", 10_000)
    attempt(READERS["archive"], zipped(name, b"a" * 1_000_000), folder)
    opened = folder / "own.zip"
    opened.write_bytes(zipped(name, b"a" * 1_000_000))
    with pytest.raises(OSError, match="more than 10,000 bytes"):
        tree.ZipTree(opened).read(name)
    opened.unlink()


def test_an_image_of_too_many_pixels_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 10_000)
    with pytest.raises(ValueError, match="it has 200 x 100 pixels; expected 10,000 at most"):
        decode.decode_image(encode(noise(100, 200)), 8)
    assert decode.decode_image(encode(noise(100, 200, 3), "JPEG"), 8).shape == (8, 8, 3)  # at a fraction of its size


@pytest.mark.parametrize("name", ["../../escape.png", "/escape.png", "a/../../../escape.png", "C:\\escape.png"])
def test_names_that_lead_outside_are_left_out(name: str, folder: Path) -> None:
    content = zipped(name, encode(noise(6, 6)))
    attempt(READERS["archive"], content, folder)
    (folder / "own.zip").write_bytes(content)
    assert tree.ZipTree(folder / "own.zip").names() == [f"{label}/image.png" for label in "abcde"]
    (folder / "own.zip").unlink()
