"""In how many bits networks compute while they are trained."""

from typing import Literal

import torch

Precision = Literal["float32", "bfloat16", "auto"]
"""``"bfloat16"`` keeps weights and losses in 32 bits, and computes convolutions and products in 16; ``"auto"`` does so
where the device has the instructions.
"""


def pick_precision(precision: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """Say in which precision to compute on a device.

    A processor without instructions for bfloat16 only emulates it: cells of NAS-Bench-201 were trained 13 times as fast
    in float32 on an AMD EPYC without AVX-512, and 1.5 times as fast in bfloat16 on one with AVX512-BF16.
    """
    if precision == "auto":
        return "bfloat16" if has_bfloat16(device) else "float32"
    return precision


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 as fast as in float32, or faster, as far as PyTorch tells."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
