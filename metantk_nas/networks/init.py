"""Weights from named random streams: equal names and seeds give equal weights, whatever else the network holds."""

import torch
from torch import nn

from metantk_nas.rng import child_seed


def initialise(network: nn.Module, seed: int, *, kaiming_head: bool) -> None:
    """Draw all weights of a network in place.

    Convolutions: Kaiming-normal, fan-out (He et al., ICCV 2015, arXiv 1502.01852). Biases zero,
    normalisation at its identity. Each weight has its own stream, named by the seed and the
    name of its layer, so a candidate's weights are the same alone and in a chunk.

    Args:
        network: modules are visited by name; buffers of normalisation layers are reset.
        seed: seed of the streams.
        kaiming_head: draw linear layers like convolutions (to score, as MetaNTK-NAS does); otherwise
            uniformly in ±1/√fan_in (to train, PyTorch's default).
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            generator = torch.Generator().manual_seed(child_seed(seed, "init", name))
            weight = torch.empty(module.weight.shape)
            if kaiming_head or isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(weight, mode="fan_out", generator=generator)
            else:
                bound = module.in_features**-0.5
                nn.init.uniform_(weight, -bound, bound, generator=generator)
            with torch.no_grad():
                module.weight.copy_(weight)
                if module.bias is not None:
                    module.bias.zero_()
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            module.reset_parameters()
