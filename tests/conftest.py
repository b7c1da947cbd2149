"""What every test stands on: one thread, and a cache of its own."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch loads: tests are many tiny tensors

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Decoded images go to a temporary cache, also in the commands that tests start."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()
