"""The devices beside the processor that tests can use: a simulated one, and a GPU where PyTorch sees one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch

from tests.simulated_device import simulated_device

OtherDevice = Callable[[], AbstractContextManager[torch.device]]
"""Have a device for as long as a block lasts."""


@contextmanager
def gpu() -> Iterator[torch.device]:
    """Have the first GPU."""
    yield torch.device("cuda", 0)


OTHER_DEVICES: Mapping[str, OtherDevice] = {"simulated": simulated_device} | (
    {"cuda": gpu} if torch.cuda.is_available() else {}
)
"""By the type of the device; tests of one run on each, see the fixture ``other_device``."""
