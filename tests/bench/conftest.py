import os
from pathlib import Path

import pytest

from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Space


@pytest.fixture(scope="session")
def data_folder() -> Path:
    default = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("METANTK_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"test data absent: {folder} (METANTK_DATA names another place)")
    return folder


@pytest.fixture(scope="session")
def cells() -> Space:
    return load_space("nas_bench_201")
