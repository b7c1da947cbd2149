"""Zen-score as its paper's algorithm 1 writes it, on the network of one architecture with plain batch normalisation."""

import math

import torch
from torch import Tensor, nn


def zen_score(network: nn.Module, images: Tensor, moved: Tensor) -> float:
    """ln of the mean distance of feature maps before pooling, plus ln σ̄ of every normalisation layer."""
    scales: list[float] = []
    maps: list[Tensor] = []

    def look(layer: nn.Module, args: tuple[Tensor], _: Tensor) -> None:
        channels = args[0].movedim(1, 0).flatten(1)
        squares = [float(((channel - channel.mean()) ** 2).mean()) for channel in channels]
        scales.append(math.sqrt(sum(squares) / len(squares)))

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(look)
    network.final.register_forward_hook(lambda *call: maps.append(call[2]))
    with torch.no_grad():
        network(torch.cat([images, moved]))
    first, second = maps[0].split(len(images))
    distances = [float((one - two).norm()) for one, two in zip(first, second, strict=True)]
    return math.log(sum(distances) / len(distances)) + sum(math.log(scale) for scale in scales if scale > 0)
