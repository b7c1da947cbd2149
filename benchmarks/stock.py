"""The same networks with PyTorch's own layers, for benchmarks of ours."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar
from unittest import mock

from torch import Tensor, nn
from torch.nn import functional

from metantk_nas.depthwise import Depthwise
from metantk_nas.networks.ops import AveragePool

Result = TypeVar("Result")


@contextmanager
def pytorchs_layers() -> Iterator[None]:
    """Put PyTorch's layers in the places of ours."""

    def padded(images: Tensor) -> tuple[Tensor, Tensor]:
        return images[:, :, ::2, ::2], functional.pad(images, (0, 1, 0, 1))[:, :, 1::2, 1::2]

    def pool(self: AveragePool, images: Tensor) -> Tensor:
        return functional.avg_pool2d(images, 3, self.stride, padding=1, count_include_pad=False)

    with ExitStack() as stack:
        for module in ("cell", "network", "ops"):
            stack.enter_context(mock.patch(f"metantk_nas.networks.{module}.dense_gradient", lambda images: images))
        stack.enter_context(mock.patch("metantk_nas.networks.ops.pixel_grids", padded))
        stack.enter_context(mock.patch.object(AveragePool, "forward", pool))
        stack.enter_context(mock.patch.object(Depthwise, "forward", nn.Conv2d.forward))
        yield


def with_pytorchs_layers(run: Callable[[], Result]) -> Callable[[], Result]:
    """Return a function that runs another with PyTorch's layers."""

    def wrapped() -> Result:
        with pytorchs_layers():
            return run()

    return wrapped
