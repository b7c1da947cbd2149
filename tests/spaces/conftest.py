import csv
import os
from pathlib import Path

import pytest

from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Space

MY_SPACE = """
name = "mine"
[cell]
types = ["normal", "reduce"]
n_inputs = 2
n_nodes = 2
edges_per_node = 1
output = "last"
ops = ["skip_connect", "nor_conv_3x3", "max_pool_3x3"]
[skeleton]
init_channels = 8
n_cells = 4
reduce_at = ["1/2"]
"""


@pytest.fixture(scope="session")
def data_folder() -> Path:
    default = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("METANTK_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"test data absent: {folder} (METANTK_DATA names another place)")
    return folder


@pytest.fixture(scope="session")
def nas_bench_201_rows(data_folder: Path) -> list[dict[str, str]]:
    with (data_folder / "nas_bench_201_cifar10.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def my_space_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(MY_SPACE)
    return path


@pytest.fixture
def my_space(my_space_file: Path) -> Space:
    return load_space(my_space_file)
