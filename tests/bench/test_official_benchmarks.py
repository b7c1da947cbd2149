import bz2
import codecs
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from metantk_nas.bench import official
from metantk_nas.bench.official import is_official, official_table
from metantk_nas.errors import UsageError
from metantk_nas.safe_pickle import safe_load

INDICES = (0, 11, 284)


class Evil:
    """A pickle that would run a command when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.fixture(scope="session")
def nats_folder(data_folder: Path) -> Path:
    return data_folder / "nats_bench"


@pytest.fixture(scope="session")
def benchmark(nats_folder: Path) -> dict[str, Any]:
    """The three architectures in the layout of the one-file benchmarks."""
    arch2infos = {}
    for index in INDICES:
        with bz2.open(nats_folder / f"{index:06d}.pickle.pbz2") as file:
            arch2infos[index] = safe_load(file, 1 << 30)
    archs = [infos["200"]["arch_str"] for infos in arch2infos.values()]
    return {"meta_archs": archs, "arch2infos": arch2infos, "evaluated_indexes": set(INDICES)}


def write_bz2(path: Path, content: object) -> Path:
    path.write_bytes(bz2.compress(pickle.dumps(content)))
    return path


def results(accuracies: dict[tuple[str, int], dict[str, Any]], index: int = 0) -> dict[str, Any]:
    arch = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    runs = {run: {"eval_acc1es": curve} for run, curve in accuracies.items()}
    return {"200": {"arch_index": index, "arch_str": arch, "all_results": runs}}


def test_a_nats_bench_folder_has_the_published_accuracies(nats_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    assert is_official(nats_folder)
    table = official_table(nats_folder, tmp_path).set_index("index")
    published = pd.read_csv(data_folder / "nas_bench_201_cifar10.csv").set_index("index").loc[list(INDICES)]
    assert list(table.index) == list(INDICES)
    assert list(table["arch"]) == list(published["arch_str"])
    for column in ("cifar10_valid12", "cifar10_test12", "cifar10_valid200", "cifar10_test200"):
        np.testing.assert_allclose(table[column], published[column], atol=5.1e-5)  # published with four decimals


def test_every_form_of_the_benchmark_says_the_same(
    nats_folder: Path, benchmark: dict[str, Any], tmp_path: Path
) -> None:
    folder = official_table(nats_folder, tmp_path)
    one_file = write_bz2(tmp_path / "NATS-tss-v1_0-3ffb9.pickle.pbz2", benchmark)
    older = {index: {"less": infos["12"], "full": infos["200"]} for index, infos in benchmark["arch2infos"].items()}
    torch.save({**benchmark, "arch2infos": older}, tmp_path / "new.pth")
    torch.save({**benchmark, "arch2infos": older}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert zipfile.is_zipfile(tmp_path / "new.pth")
    assert not zipfile.is_zipfile(tmp_path / "old.pth")
    for path in (one_file, tmp_path / "new.pth", tmp_path / "old.pth"):
        assert is_official(path)
        pd.testing.assert_frame_equal(official_table(path, tmp_path), folder)


def test_accuracies_are_those_of_the_official_package(benchmark: dict[str, Any], tmp_path: Path) -> None:
    api = pytest.importorskip("nas_201_api")
    older = {index: {"less": infos["12"], "full": infos["200"]} for index, infos in benchmark["arch2infos"].items()}
    torch.save({**benchmark, "arch2infos": older}, tmp_path / "NAS-Bench-201-v1_1-096897.pth")
    table = official_table(tmp_path / "NAS-Bench-201-v1_1-096897.pth", tmp_path).set_index("index")
    columns = {
        ("cifar10-valid", "x-valid"): "cifar10_valid",
        ("cifar10", "ori-test"): "cifar10_test",
        ("cifar100", "x-valid"): "cifar100_valid",
        ("cifar100", "x-test"): "cifar100_test",
        ("ImageNet16-120", "x-valid"): "imagenet16_valid",
        ("ImageNet16-120", "x-test"): "imagenet16_test",
    }
    for index in INDICES:
        for schedule, epochs in (("less", 12), ("full", 200)):
            found = api.ArchResults.create_from_state_dict(older[index][schedule])
            for (data, judged), column in columns.items():
                mean = found.get_metrics(data, judged, is_random=False)["accuracy"]
                assert table.loc[index, f"{column}{epochs}"] == pytest.approx(mean, abs=1e-9)


def test_seeds_are_averaged_and_what_was_not_trained_is_missing(tmp_path: Path) -> None:
    curve = {"ori-test@198": 1.0, "ori-test@199": 80.0}
    content = results({("cifar10", 777): curve, ("cifar10", 888): {"ori-test@199": np.float64(90.0)}, ("other", 1): {}})
    write_bz2(tmp_path / "000000.pickle.pbz2", content)
    row = official_table(tmp_path, tmp_path / "cache").iloc[0]
    assert row["cifar10_test200"] == 85.0
    assert np.isnan(row["cifar100_test200"])
    assert "cifar10_test12" not in row


def test_the_originals_are_read_once(nats_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "nats"
    shutil.copytree(nats_folder, folder)
    told: list[tuple[str, int, int]] = []
    first = official_table(folder, tmp_path / "cache", lambda *progress: told.append(progress))
    assert [done for _, done, _ in told] == [0, 1, 2]
    with monkeypatch.context() as patch:
        patch.setattr(official, "safe_load", lambda *_: pytest.fail("an original was read again"))
        pd.testing.assert_frame_equal(official_table(folder, tmp_path / "cache"), first)
    write_bz2(folder / "000011.pickle.pbz2", results({("cifar10", 1): {"ori-test@199": 50.0}}, index=11))
    assert official_table(folder, tmp_path / "cache")["cifar10_test200"][1] == 50.0


def test_a_cache_that_cannot_be_written_costs_a_warning_only(nats_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.warns(UserWarning, match="will be read again next time"):
        assert len(official_table(nats_folder, tmp_path / "cache")) == 3


@pytest.mark.parametrize("form", ["folder", "one file", "new torch", "old torch"])
@pytest.mark.parametrize(
    ("function", "wanted"),
    [(os.system, r"(posix|nt)\.system"), (eval, r"(__builtin__|builtins)\.eval"), (torch.load, r"torch.*\.load")],
)
def test_a_file_that_would_run_code_is_refused(form: str, function: Any, wanted: str, tmp_path: Path) -> None:
    marker = tmp_path / "was run"
    command = f"open({str(marker)!r}, 'w')" if function is eval else f"touch '{marker}'"
    content = {**results({}), "surprise": Evil(function, command)}
    if form in ("folder", "one file"):
        path = tmp_path / ("000000.pickle.pbz2" if form == "folder" else "NATS.pickle.pbz2")
        write_bz2(path, content)
        path = tmp_path if form == "folder" else path
    else:
        path = tmp_path / "evil.pth"
        torch.save(content, path, _use_new_zipfile_serialization=form == "new torch")
    with pytest.raises(UsageError, match=rf"it wants {wanted}, which is no number.*Nothing in it was run.*Fetch"):
        official_table(path, tmp_path / "cache")
    assert not marker.exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([Evil(os.system, "true")], dtype=object), "_reconstruct"),
        (np.zeros(3), "_reconstruct|_frombuffer"),
        (np.datetime64("2020-01-01"), "type 'M8'"),
        (np.str_("text"), "type 'U4'"),
        (Path("there"), "pathlib"),
        (Evil(getattr, "text", "upper"), "builtins.getattr"),
        (Evil(codecs.encode, "text", "rot13"), "bytes encoded as 'rot13'"),
    ],
)
def test_nothing_but_text_numbers_and_containers_is_built(value: object, message: str, tmp_path: Path) -> None:
    write_bz2(tmp_path / "000000.pickle.pbz2", {**results({}), "more": value})
    with pytest.raises(UsageError, match=message):
        official_table(tmp_path, tmp_path / "cache")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "value", [np.float64(0.1), np.float32(0.1), np.int64(-3), np.uint8(7), np.bool_(True), np.float64("nan"), {1, 2}]
)
def test_numbers_come_back_as_they_were(value: Any, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "value.pickle"
    path.write_bytes(pickle.dumps([value, "text", None, (1, 2.5)], protocol))
    with path.open("rb") as file:
        found = safe_load(file, 1 << 30)
    assert found[1:] == ["text", None, (1, 2.5)]
    assert found[0] == value or np.isnan(value)


def test_files_with_network_weights_are_told_from_those_without(tmp_path: Path) -> None:
    torch.save({**results({}), "net_state_dict": {"weight": torch.ones(2)}}, tmp_path / "weights.pth")
    with pytest.raises(UsageError, match=r"_rebuild_tensor|network weights"):
        official_table(tmp_path / "weights.pth", tmp_path)
    (tmp_path / "bare.pickle.pbz2").write_bytes(bz2.compress(b"Pstorage\n."))  # a pickle of a tensor's storage
    with pytest.raises(UsageError, match="network weights"):
        official_table(tmp_path / "bare.pickle.pbz2", tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"no pickle", b"BZh9 broken", bz2.compress(b"\x80\x04"), bz2.compress(b"I1\n.")]
)
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "000007.pickle.pbz2").write_bytes(content)
    with pytest.raises(UsageError, match=r"000007\.pickle\.pbz2 cannot be read as NAS-Bench-201"):
        official_table(tmp_path, tmp_path / "cache")


def test_a_truncated_download_is_named(nats_folder: Path, tmp_path: Path) -> None:
    whole = (nats_folder / "000000.pickle.pbz2").read_bytes()
    (tmp_path / "000000.pickle.pbz2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"000000\.pickle\.pbz2 cannot be read"):
        official_table(tmp_path, tmp_path / "cache")


@pytest.mark.parametrize("members", [["other.txt"], ["a/data.pkl", "b/data.pkl"]])
def test_an_archive_that_torch_did_not_write_is_refused(members: list[str], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.pth", "w") as archive:
        for name in members:
            archive.writestr(name, pickle.dumps(1))
    with pytest.raises(UsageError, match=r"no file of torch\.save"):
        official_table(tmp_path / "some.pth", tmp_path)


def test_a_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "MAX_BYTES", 1_000)
    write_bz2(tmp_path / "000000.pickle.pbz2", {**results({}), "more": "x" * 2_000})
    with pytest.raises(UsageError, match="unpacks to more than 1,000 bytes"):
        official_table(tmp_path, tmp_path / "cache")


def test_a_folder_without_architectures_is_named(tmp_path: Path) -> None:
    write_bz2(tmp_path / "meta.pickle.pbz2", {"meta_archs": []})
    with pytest.raises(UsageError, match=r"holds no architecture; expected files such as 000000\.pickle\.pbz2"):
        official_table(tmp_path, tmp_path / "cache")
