"""What does a step of training cost, against the same networks with PyTorch's own layers?

    python benchmarks/training.py --json benchmarks/results/training.json

Networks of random cells learn 64 classes from a batch, as the protocol `rfs` has it: a forward and a backward pass with
batch normalisation. Ours have depthwise convolutions and pools with gradients of their own and keep gradients in the
layout that layers are fast in; "PyTorch's" puts those of `torch.nn` in their places. Both take turns; medians are of
processor time on a CPU, summed over the networks.
"""

import argparse
import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from stock import pytorchs_layers
from timing import interleaved, machine, settings_of
from torch import Tensor, nn
from torch.nn import functional

from metantk_nas.networks.build import build_network, resize
from metantk_nas.searchers.base import SearchProblem
from metantk_nas.searchers.random import distinct_draws
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Space

N_CLASSES = 64
SPACES = {"nas_bench_201": (16, 3), "darts_fewshot": (16, 5), "darts": (16, 8)}
"""Channels and cells."""


def step(model: nn.Module, images: Tensor, labels: Tensor, dtype: torch.dtype) -> None:
    """Compute the gradients of one batch."""
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        loss = functional.cross_entropy(model(images).float(), labels)
    torch.autograd.grad(loss, [*model.parameters()], allow_unused=True)


def pytorchs_step(model: nn.Module, images: Tensor, labels: Tensor, dtype: torch.dtype) -> None:
    """Compute the same with PyTorch's layers."""
    with pytorchs_layers():
        step(model, images, labels, dtype)


def networks(space: Space, n_networks: int, device: torch.device) -> Iterator[nn.Module]:
    """Yield the first cells of a search with seed 0."""
    problem = SearchProblem(space, None, 0, space.is_connected, lambda group: [0.0] * len(group))
    for genotype in islice(distinct_draws(problem), n_networks):
        text = space.format(space.representative(genotype))
        network = build_network(
            text, space, n_outputs=N_CLASSES, in_channels=3, norm="batch", seed=0, image_size=32
        ).to(device)
        yield network.train()


def compare(space: Space, arguments: argparse.Namespace, dtype: torch.dtype) -> dict[str, float]:
    """Milliseconds of a step, mean over networks."""
    device = torch.device(arguments.device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(arguments.batch, 3, 32, 32, generator=generator).to(device, memory_format=torch.channels_last)
    labels = torch.randint(N_CLASSES, (arguments.batch,), generator=generator).to(device)
    total = {"ours": 0.0, "PyTorch's": 0.0}
    for network in networks(space, arguments.networks, device):
        given = (network, images, labels, dtype)
        methods = {"ours": partial(step, *given), "PyTorch's": partial(pytorchs_step, *given)}
        for name, seconds in interleaved(methods, arguments.turns, device).items():
            total[name] += 1000 * seconds / arguments.networks
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--networks", type=int, default=4, help="random cells of each space")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = {}
    print(f"{'':32} {'ours':>9} {'PyTorch':>9}   ms a step of {arguments.batch} images")
    for name, (channels, cells) in SPACES.items():
        space = resize(load_space(name), init_channels=channels, n_cells=cells)
        for dtype in (torch.bfloat16, torch.float32):
            row = compare(space, arguments, dtype)
            title = f"{name}, {str(dtype).removeprefix('torch.')}"
            found[title] = row
            ours, theirs = row.values()
            print(f"{title:32} {ours:9.0f} {theirs:9.0f}   {theirs / ours:.2f} ×")
    if arguments.json:
        record = {
            "settings": settings_of(arguments),
            "machine": machine(torch.device(arguments.device)),
            "milliseconds": found,
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
