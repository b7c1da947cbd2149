"""What every test stands on: one thread, no width of a terminal, and a cache of its own."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch loads: tests are many tiny tensors
os.environ.pop("COLUMNS", None)  # before consoles are made: tests set widths of their own

import pytest
from hypothesis import settings

from tests import simulated_device
from tests.devices import OTHER_DEVICES, OtherDevice

simulated_device.register()
settings.register_profile("any machine", deadline=None)  # a busy one may need seconds for what takes milliseconds
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Decoded images go to a temporary cache, also in the commands that tests start."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(params=OTHER_DEVICES)
def other_device(request: pytest.FixtureRequest) -> OtherDevice:
    """A device that does not mix with the processor: a simulated one, and a GPU where there is one."""
    return OTHER_DEVICES[request.param]


@pytest.fixture(scope="session")
def ray_cluster(_own_cache):
    """A Ray cluster on this machine with four cores and a GPU that it only believes in; this process is connected."""
    ray = pytest.importorskip("ray", reason="Ray is in the extra 'ray'")
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}  # no less than the tests themselves
    ray.init("local", num_cpus=4, num_gpus=1, include_dashboard=False, logging_level="error", log_to_driver=False)
    yield ray
    ray.shutdown()
