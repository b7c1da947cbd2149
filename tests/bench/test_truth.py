from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metantk_nas.bench.truth import Truth, read_truth
from metantk_nas.errors import UsageError
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Space

CONV = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|nor_conv_1x1~1|none~2|"
SAME_AS_CONV = "|nor_conv_3x3~0|+|avg_pool_3x3~0|none~1|+|none~0|nor_conv_1x1~1|none~2|"  # its pool reaches nothing
SKIP = "|skip_connect~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|"
POOL = "|avg_pool_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|"


def write(folder: Path, frame: pd.DataFrame, name: str = "table.csv") -> Path:
    frame.to_csv(folder / name, index=False)
    return folder / name


def few_shot_table(space: Space) -> pd.DataFrame:
    """Two trainings of three architectures, and Conv-4, the yardstick."""
    archs = ["conv4", CONV, SKIP, POOL] * 2
    frame = pd.DataFrame({"arch": archs, "protocol": "rfs", "seed": [0] * 4 + [1] * 4})
    frame.insert(0, "key", [arch if arch == "conv4" else space.key(space.parse(arch)) for arch in archs])
    frame["accuracy_1shot"] = [0.4, 0.5, 0.45, 0.4, 0.4, 0.52, 0.43, 0.44]
    frame["accuracy_5shot"] = [0.6, 0.7, 0.6, 0.5, 0.6, 0.74, 0.64, 0.52]
    frame["accuracy_5shot_ci"] = [0.01, 0.02, 0.01, 0.01, 0.01, 0.04, 0.01, 0.01]
    frame["params"], frame["macs"] = 1000, [pd.NA, 5, 6, 7] * 2
    return frame


def test_seeds_of_a_key_are_averaged_and_the_yardstick_is_left_out(cells: Space, tmp_path: Path) -> None:
    write(tmp_path, few_shot_table(cells))
    truth = read_truth(tmp_path, cells)
    assert truth.column == "accuracy_5shot"
    frame = truth.averaged()
    assert list(frame.index) == sorted(cells.key(cells.parse(arch)) for arch in (CONV, SKIP, POOL))
    row = frame.loc[cells.key(cells.parse(CONV))]
    assert row["truth"] == pytest.approx(0.72)
    assert row["ci"] == pytest.approx(0.03)
    assert (row["n_rows"], row["macs"], row["arch"]) == (2, 5, CONV)


def test_another_column_can_be_the_truth(cells: Space, tmp_path: Path) -> None:
    path = write(tmp_path, few_shot_table(cells))
    truth = read_truth(path, cells, "accuracy_1shot")
    assert truth.averaged().loc[cells.key(cells.parse(SKIP)), "truth"] == pytest.approx(0.44)
    assert "ci" not in truth.averaged()


def test_cells_of_one_function_share_a_key_and_their_mean(cells: Space, tmp_path: Path) -> None:
    path = write(tmp_path, pd.DataFrame({"arch_str": [CONV, SAME_AS_CONV, SKIP], "accuracy": [90.0, 92.0, 70.0]}))
    truth = read_truth(path, cells)
    by_key = truth.averaged()
    assert len(by_key) == 2
    row = by_key.loc[cells.key(cells.parse(CONV))]
    assert (row["truth"], row["n_rows"], row["arch"]) == (91.0, 2, CONV)
    by_arch = truth.averaged("arch")
    assert by_arch["truth"].to_dict() == {CONV: 90.0, SAME_AS_CONV: 92.0, SKIP: 70.0}


def test_every_cell_of_nas_bench_201_is_read(cells: Space, data_folder: Path) -> None:
    truth = read_truth(data_folder / "nas_bench_201_cifar10.csv", cells)
    assert (truth.column, len(truth.rows), len(truth.averaged("arch"))) == ("cifar10_test200", 15_625, 15_625)
    assert list(truth.rows["index"]) == list(range(15_625))
    assert truth.averaged()["n_rows"].sum() == 15_625
    first = truth.averaged("arch").loc[truth.rows["arch"][11]]
    assert first["truth"] == 91.5833


def test_an_official_folder_is_a_truth(cells: Space, data_folder: Path, tmp_path: Path) -> None:
    truth = read_truth(data_folder / "nats_bench", cells, "cifar100_test200", cache_dir=tmp_path)
    assert list(truth.rows["index"]) == [0, 11, 284]
    assert truth.rows["truth"].iloc[2] == pytest.approx(62.14)
    assert len(list(tmp_path.glob("nats_bench-*.csv"))) == 1


def test_keys_alone_are_enough_to_compare_by_key(cells: Space, tmp_path: Path) -> None:
    frame = pd.DataFrame({"key": ["11111111111111111111", "0e0"], "accuracy": [1.0, 2.0]})
    truth = read_truth(write(tmp_path, frame), cells)
    assert list(truth.averaged().index) == ["0e0", "11111111111111111111"]
    with pytest.raises(UsageError, match="names keys, not architectures"):
        truth.averaged("arch")


def test_rows_of_two_protocols_are_never_averaged(cells: Space, tmp_path: Path) -> None:
    frame = few_shot_table(cells)
    both = pd.concat([frame, frame.assign(protocol="protonet", accuracy_5shot=0.1)])
    path = write(tmp_path, both)
    with pytest.raises(UsageError, match="rows of protocol rfs, protonet, which are different truths"):
        read_truth(path, cells)
    truth = read_truth(path, cells, where={"protocol": "rfs", "seed": "1"})
    assert truth.averaged().loc[cells.key(cells.parse(CONV)), "truth"] == 0.74
    with pytest.raises(UsageError, match=r"protocol of table\.csv 'rfz' not found.*Did you mean 'rfs'"):
        read_truth(path, cells, where={"protocol": "rfz"})
    with pytest.raises(UsageError, match="'protocl' not found"):
        read_truth(path, cells, where={"protocl": "rfs"})


def test_what_was_not_measured_is_left_out(cells: Space, tmp_path: Path) -> None:
    path = write(tmp_path, pd.DataFrame({"arch": [CONV, SKIP, None], "accuracy": [np.nan, 0.5, 0.6]}))
    assert list(read_truth(path, cells).rows["arch"]) == [SKIP]
    path = write(tmp_path, pd.DataFrame({"arch": [CONV], "accuracy": [np.inf]}))
    with pytest.raises(UsageError, match="no finite accuracy of any architecture of nas_bench_201"):
        read_truth(path, cells)


def test_seeds_agree_as_their_common_keys_do() -> None:
    rows = pd.DataFrame({"key": list("abcdabcda"), "seed": [0] * 4 + [1] * 4 + [2], "arch": ""})
    rows["truth"] = [1.0, 2.0, 3.0, 4.0, 1.0, 3.0, 2.0, 4.0, 9.0]
    agreement = Truth("table", "accuracy", rows).seed_agreement()
    assert agreement is not None
    assert agreement[0].value == pytest.approx(4 / 6)
    assert agreement[1] == 4
    assert Truth("table", "accuracy", rows[rows["seed"] != 1]).seed_agreement() is None
    assert Truth("table", "accuracy", rows.drop(columns="seed")).seed_agreement() is None


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"name": ["a"], "accuracy": [1.0]}, "columns name, accuracy; expected one of arch, arch_str or key"),
        ({"arch": [CONV], "first": [1.0], "second": [2.0]}, "columns of numbers first, second; name the one"),
        ({"arch": [CONV], "text": ["x"]}, r"columns of numbers \(none\); name the one"),
        ({"arch": ["|conv~0|"], "accuracy": [1.0]}, "is not about nas_bench_201"),
    ],
)
def test_a_table_that_is_no_truth_is_refused(frame: dict, message: str, cells: Space, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read_truth(write(tmp_path, pd.DataFrame(frame)), cells)


def test_a_column_that_is_not_there_is_named(cells: Space, tmp_path: Path) -> None:
    path = write(tmp_path, few_shot_table(cells))
    with pytest.raises(UsageError, match=r"'acuracy_5shot' not found.*Did you mean 'accuracy_5shot'"):
        read_truth(path, cells, "acuracy_5shot")


def test_a_file_that_is_not_there_is_named(cells: Space, tmp_path: Path) -> None:
    for name in ("absent.csv", "absent.pth"):
        with pytest.raises(UsageError, match=f"there is no truth at .*{name}"):
            read_truth(tmp_path / name, cells)


def test_a_folder_without_a_table_is_named(cells: Space, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*table\.csv as CSV"):
        read_truth(tmp_path, cells)


def test_a_table_of_the_yardstick_alone_has_no_truth(tmp_path):
    (tmp_path / "table.csv").write_text("arch,accuracy\nconv4,0.5\n")
    with pytest.raises(UsageError, match="no finite accuracy of any architecture of nas_bench_201"):
        read_truth(tmp_path / "table.csv", load_space("nas_bench_201"))
