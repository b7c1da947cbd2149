"""The operations that a space may name: one table, pure data. ``networks/ops.py`` implements each."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

NAS_BENCH_201 = "Dong & Yang, ICLR 2020, arXiv 2001.00326"
DARTS = "Liu, Simonyan & Yang, ICLR 2019, arXiv 1806.09055"
METANTK_NAS = "Wang, Wang, Sun & Li, CVPR 2022, arXiv 2203.09137"


@dataclass(frozen=True)
class OpTraits:
    """What can be said of an operation without running it.

    Args:
        parametric: has trainable weights at stride 1, the affine weights of a normalisation included.
        description: one line, in the order of computation.
        source: paper that defines the operation under this name.
        kind: ``"zero"`` outputs zeros, ``"identity"`` outputs its input (at stride 1), all else is ``"operation"``.
    """

    parametric: bool
    description: str
    source: str
    kind: Literal["zero", "identity", "operation"] = "operation"


OPS: Mapping[str, OpTraits] = MappingProxyType(
    {
        "none": OpTraits(False, "zeros: the edge is absent", NAS_BENCH_201, kind="zero"),
        "skip_connect": OpTraits(False, "identity; a factorised reduction at stride 2", NAS_BENCH_201, kind="identity"),
        "nor_conv_1x1": OpTraits(True, "ReLU, 1×1 convolution, norm", NAS_BENCH_201),
        "nor_conv_3x3": OpTraits(True, "ReLU, 3×3 convolution, norm", NAS_BENCH_201),
        "avg_pool_3x3": OpTraits(False, "3×3 average pooling, padding not counted", NAS_BENCH_201),
        "max_pool_3x3": OpTraits(False, "3×3 maximum pooling", DARTS),
        "avg_pool_3x3BN": OpTraits(True, "3×3 average pooling, norm", METANTK_NAS),
        "max_pool_3x3BN": OpTraits(True, "3×3 maximum pooling, norm", METANTK_NAS),
        "sep_conv_3x3": OpTraits(True, "twice: ReLU, depthwise 3×3, pointwise, norm", DARTS),
        "sep_conv_5x5": OpTraits(True, "twice: ReLU, depthwise 5×5, pointwise, norm", DARTS),
        "dil_conv_3x3": OpTraits(True, "ReLU, depthwise 3×3 of dilation 2, pointwise, norm", DARTS),
        "dil_conv_5x5": OpTraits(True, "ReLU, depthwise 5×5 of dilation 2, pointwise, norm", DARTS),
        "conv_1x5_5x1": OpTraits(True, "ReLU, 1×5 convolution, 5×1 convolution, norm", METANTK_NAS),
        "conv_7x1_1x7": OpTraits(True, "ReLU, 1×7 convolution, 7×1 convolution, norm", DARTS),
        "conv_3x3": OpTraits(True, "ReLU, depthwise 3×3, pointwise, norm", METANTK_NAS),
    }
)
"""Every legal operation by its published name."""
