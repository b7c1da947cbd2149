"""Arithmetic in which kernels are computed: all of float32's digits, as fast as the machine gives them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

PROBE = (4, 48, 1024)
"""Shape of the products by which a matrix library's digits are judged: matrices, rows, inner size."""


@contextmanager
def exact_float32() -> Iterator[None]:
    """Keep convolutions and matrix products in float32, and repeatable on a GPU.

    TF32's 10-bit mantissa would drown small eigenvalues. On a CPU matrix products go to oneDNN where its products
    are just as exact: PyTorch asks it for float32 only under the name of a lower precision, and where the processor has
    no faster lower precision it computes float32 with wider vectors than PyTorch's own library (up to three times
    faster on AMD).
    """
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # set up at run time
    before = settings.fp32_precision
    try:
        if onednn_is_exact():
            settings.fp32_precision = "bf16"
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        settings.fp32_precision = before


@cache
def onednn_is_exact() -> bool:
    """Whether oneDNN's matrix products, asked for at lower precision, carry float32's digits on this machine."""
    if not torch.backends.mkldnn.is_available() or torch.cpu._is_amx_tile_supported():
        return False
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(PROBE, generator=generator) for _ in range(2))
    expected = left.double() @ right.double().mT
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # set up at run time
    before = settings.fp32_precision
    errors = []
    try:
        for precision in ("ieee", "bf16"):
            settings.fp32_precision = precision
            errors.append(float((left @ right.mT - expected).norm()))
    finally:
        settings.fp32_precision = before
    return errors[1] <= 4 * errors[0]


def outer_product(jacobian: Tensor) -> Tensor:
    """Compute ``J Jᵀ`` of ``[candidate, row, parameter]``.

    On a CPU candidates are multiplied one by one: that is as fast, a batch of one would be slow in oneDNN, and the
    result has the same bits in every chunk.
    """
    if jacobian.device.type == "cpu":
        return torch.stack([rows @ rows.mT for rows in jacobian])
    return jacobian @ jacobian.mT
