"""A device that computes like the processor and will not mix with it, as a GPU would not.

Its tensors hold tensors of the processor inside. An operation on tensors of both devices, a generator of the processor
for numbers on the device, and arrays of NumPy without a copy back are errors here as they are on a GPU, so code that
runs here puts everything where it belongs. What it finds must equal what the processor finds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "simulated"


def register() -> None:
    """Tell PyTorch of the device, once and before anything is differentiated: it then counts its devices for good."""
    _setup_privateuseone_for_python_backend(NAME)


@contextmanager
def simulated_device() -> Iterator[torch.device]:
    """Have a simulated device; tensors must not be used after it is gone."""
    with _Operations(), _Lists():
        yield torch.device(NAME, 0)


class _Tensor(torch.Tensor):
    """A tensor of the device."""

    inside: Tensor

    @staticmethod
    def __new__(cls, inside: Tensor) -> "_Tensor":
        return Tensor._make_wrapper_subclass(
            cls,
            inside.shape,
            strides=inside.stride(),
            storage_offset=inside.storage_offset(),
            dtype=inside.dtype,
            device=torch.device(NAME, 0),
            requires_grad=inside.requires_grad,
        )

    def __init__(self, inside: Tensor) -> None:
        self.inside = inside

    def __repr__(self) -> str:
        return f"{self.inside} on the simulated device"

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inside"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> "_Tensor":
        return _Tensor(inner["inside"])

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _operate(function, args, kwargs or {})


class _Operations(TorchDispatchMode):
    """Also sees operations that only make tensors."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _operate(function, args, kwargs or {})


class _Lists(TorchFunctionMode):
    """What goes from and to lists of Python in one step goes by way of the processor."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.tensor and "device" in kwargs:
            rest = {name: value for name, value in kwargs.items() if name != "device"}
            return function(*args, **rest).to(kwargs["device"])
        if function is Tensor.new_tensor:
            return torch.tensor(args[1], dtype=args[0].dtype).to(args[0].device)
        if function is Tensor.__getitem__ and isinstance(args[1], list):
            args = (args[0], torch.tensor(args[1]).to(args[0].device))
        if function is Tensor.tolist:
            return function(args[0].cpu())
        return function(*args, **kwargs)


def _operate(function: Any, args: Any, kwargs: Any) -> Any:
    given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    here = [isinstance(each, _Tensor) for each in given]
    asked = kwargs.get("device")
    to_device = any(here) if asked is None else torch.device(asked).type == NAME
    copies = function.overloadpacket is torch.ops.aten.copy_
    if any(here) and not copies and any(not ours and each.dim() for ours, each in zip(here, given, strict=True)):
        raise RuntimeError(f"{function} of tensors on two devices")
    if to_device and kwargs.get("generator") is not None:
        raise RuntimeError(f"{function} on the device with a generator of the processor")
    inner_args, inner_kwargs = tree_map_only(_Tensor, lambda each: each.inside, (args, kwargs))
    if asked is not None:
        inner_kwargs = {**inner_kwargs, "device": torch.device("cpu")}
    if function is torch.ops.aten._efficientzerotensor.default:  # has no memory, and would hide in ours
        function = torch.ops.aten.zeros.default
    out = function(*inner_args, **inner_kwargs)
    if copies:
        return args[0]
    if not to_device:
        return out
    out = tree_map_only(Tensor, _Tensor, out)
    return return_and_correct_aliasing(function, args, kwargs, out) if any(here) else out
