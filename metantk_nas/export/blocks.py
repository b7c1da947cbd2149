"""Python source of what networks are made of, a text a block; a test holds it to `metantk_nas.networks.ops`."""

import re
from collections.abc import Mapping

from metantk_nas.networks.norms import NormKind
from metantk_nas.spaces.ops import OPS

_NORM = '''
def norm({channels}: int) -> nn.Module:
    """Build the normalisation of some feature maps."""
    return {layer}
'''

_GROUP_NORM = '''
def norm(channels: int) -> nn.Module:
    """Build the normalisation of some feature maps: the most groups that divide them, 16 at most."""
    groups = next(groups for groups in range(min(16, channels), 0, -1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)
'''

NORMS: Mapping[NormKind, str] = {
    "batch": _NORM.format(channels="channels", layer="nn.BatchNorm2d(channels)"),
    "batch_stats": _NORM.format(channels="channels", layer="nn.BatchNorm2d(channels, track_running_stats=False)"),
    "group": _GROUP_NORM,
    "none": _NORM.format(channels="_channels", layer="nn.Identity()"),
}
"""The function ``norm`` of each kind."""

_HELPERS: Mapping[str, str] = {
    "relu_conv_norm": '''
def relu_conv_norm(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Build ReLU, dense convolution, normalisation."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, norm(channels_out))
''',
    "separable": '''
def separable(channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    """List ReLU, depthwise convolution, pointwise convolution, normalisation."""
    padding = dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        norm(channels),
    ]
''',
    "cross": '''
def cross(channels: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """List ReLU, a convolution along the width, one along the height, normalisation."""
    half = kernel // 2
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, kernel), (1, stride), (0, half), bias=False),
        nn.Conv2d(channels, channels, (kernel, 1), (stride, 1), (half, 0), bias=False),
        norm(channels),
    ]
''',
    "FactorizedReduction": '''
class FactorizedReduction(nn.Module):
    """Halve height and width: two 1x1 convolutions side by side, the second shifted by one pixel."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(channels_in, channels_out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(channels_in, channels_out - channels_out // 2, 1, stride=2, bias=False)
        self.norm = norm(channels_out)

    def forward(self, images: Tensor) -> Tensor:
        """Map feature maps to half their height and width, rounded up."""
        activated = self.relu(images)
        shifted = functional.pad(activated, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.norm(torch.cat([self.even(activated), self.odd(shifted)], dim=1))
''',
    "ResidualReduction": '''
class ResidualReduction(nn.Module):
    """Halve height and width between stages: a residual block of two 3x3 convolutions."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = relu_conv_norm(channels_in, channels_out, 3, stride=2)
        self.second = relu_conv_norm(channels_out, channels_out, 3)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map feature maps to half their height and width, rounded up."""
        return self.shortcut(images) + self.second(self.first(images))
''',
    "conv_block": '''
def conv_block(channels_in: int, channels_out: int) -> nn.Sequential:
    """Build 3x3 convolution, normalisation, ReLU, 2x2 max pooling."""
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
    return nn.Sequential(conv, norm(channels_out), nn.ReLU(), nn.MaxPool2d(2))
''',
    "strided_block": '''
def strided_block(channels_in: int, channels_out: int) -> nn.Sequential:
    """Build 3x3 convolution of stride 2, normalisation, ReLU."""
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1), norm(channels_out), nn.ReLU())
''',
}
"""Blocks in the order in which they stand; a block uses earlier ones only."""

_AVG_POOL = "nn.AvgPool2d(3, {stride}, padding=1, count_include_pad=False)"
_MAX_POOL = "nn.MaxPool2d(3, {stride}, padding=1)"

CALLS: Mapping[str, str] = {
    "skip_connect": "FactorizedReduction(channels, channels)",  # at stride 2; at stride 1 it is the state itself
    "nor_conv_1x1": "relu_conv_norm(channels, channels, 1{strided})",
    "nor_conv_3x3": "relu_conv_norm(channels, channels, 3{strided})",
    "avg_pool_3x3": _AVG_POOL,
    "max_pool_3x3": _MAX_POOL,
}
"""Expressions of the operations that need no function of their own."""

FUNCTIONS: Mapping[str, str] = {
    "avg_pool_3x3BN": f"{_AVG_POOL}, norm(channels)",
    "max_pool_3x3BN": f"{_MAX_POOL}, norm(channels)",
    "sep_conv_3x3": "*separable(channels, 3, {stride}), *separable(channels, 3)",
    "sep_conv_5x5": "*separable(channels, 5, {stride}), *separable(channels, 5)",
    "dil_conv_3x3": "*separable(channels, 3, {stride}, dilation=2)",
    "dil_conv_5x5": "*separable(channels, 5, {stride}, dilation=2)",
    "conv_3x3": "*separable(channels, 3, {stride})",
    "conv_1x5_5x1": "*cross(channels, 5, {stride})",
    "conv_7x1_1x7": "*cross(channels, 7, {stride})",
}
"""Layers of the operations that have one."""


def call_op(op: str, stride: int) -> str:
    """Return the expression that builds an operation of ``channels`` feature maps."""
    strided = ", stride=2" if stride == 2 else ""
    if op in CALLS:
        return CALLS[op].format(stride=stride, strided=strided)
    return f"{_function_name(op)}(channels{strided})"


def blocks_for(code: str, norm: NormKind) -> list[str]:
    """Return the blocks that some code calls, in order.

    Args:
        code: calls blocks by name.
        norm: what ``norm`` builds.
    """
    functions = {_function_name(op): _function(op) for op in FUNCTIONS}
    blocks: list[str] = []
    for name, block in reversed([("norm", NORMS[norm]), *_HELPERS.items(), *functions.items()]):
        if any(re.search(rf"(?<![\w.]){name}\(", text) for text in (code, *blocks)):
            blocks.insert(0, block.lstrip())
    return blocks


def _function(op: str) -> str:
    """Return the function that builds an operation."""
    description = OPS[op].description.replace("×", "x")
    return (
        f"def {_function_name(op)}(channels: int, stride: int = 1) -> nn.Sequential:\n"
        f'    """{description[0].upper()}{description[1:]}."""\n'
        f"    return nn.Sequential({FUNCTIONS[op].format(stride='stride')})\n"
    )


def _function_name(op: str) -> str:
    return op.replace("BN", "_norm")
