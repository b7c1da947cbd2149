"""What does the first round of the pruning search cost, against the way of the method's public code?

    python benchmarks/pruning.py --threads 1 --json benchmarks/results/pruning.json

A round scores the un-pruned network and every network with one operation less, in three repeats (paper settings:
few-shot DARTS, 48 channels, 5 cells, 30 images). Four kernels are timed in turn, those of the un-pruned network and of
one with an operation less, each layer by layer (ours) and by one backward pass a row through the graph of all
rows (as MetaNTK-NAS and TE-NAS do). Three ways to do the round follow by counting kernels:

  ours              the un-pruned network once a repeat, layer by layer
  one by one        the un-pruned network again for every removal, layer by layer
  backward per row  the same, by one backward pass a row
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from kernel import ours, prepare
from stock import with_pytorchs_layers
from timing import interleaved, machine, settings_of
from torch import Tensor, nn

from metantk_nas.networks.build import resize
from metantk_nas.searchers.base import SearchProblem
from metantk_nas.searchers.pruning import PruningSearcher
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Space
from metantk_nas.spaces.subspace import Architecture


def backward_per_row(model: nn.Module, weights: list[nn.Parameter], images: Tensor) -> Tensor:
    """Compute the NTK by one backward pass a row through the graph of all rows."""
    jacobian = []
    for output in model(images).sum(dim=1):
        gradients = torch.autograd.grad(output, weights, retain_graph=True)
        jacobian.append(torch.cat([gradient.flatten() for gradient in gradients]))
    rows = torch.stack(jacobian)
    return rows @ rows.mT


def first_round(space: Space) -> list[Architecture]:
    """Return what the pruning search asks first: the un-pruned network, then every removal."""
    problem = SearchProblem(space, None, 0, lambda _: True, lambda group: [0.0] * len(group))
    return PruningSearcher(problem).ask(10_000)


def time_kernels(space: Space, asked: list[Architecture], images: Tensor, turns: int) -> dict[str, float]:
    """Seconds of one kernel, by network and method."""
    methods = {}
    for name, architecture in (("un-pruned", asked[0]), ("one less", asked[len(asked) // 2])):
        own, _ = prepare(space, architecture, images.device, stock=False)
        model, weights = prepare(space, architecture, images.device)
        per_row = with_pytorchs_layers(partial(backward_per_row, model, list(weights.values()), images))
        expected = ours(own, images)
        error = (per_row() - expected).norm() / expected.norm()
        if error > 1e-4:
            raise SystemExit(f"{name}: the methods give different kernels, relative error {error:.1e}")
        methods[f"{name}, ours"] = partial(ours, own, images)
        methods[f"{name}, backward per row"] = per_row
    return interleaved(methods, turns, images.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="darts_fewshot")
    parser.add_argument("--init-channels", type=int, default=48)
    parser.add_argument("--n-cells", type=int, default=5)
    parser.add_argument("--rows", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3, help="re-initialisations of the search")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    space = resize(load_space(arguments.space), init_channels=arguments.init_channels, n_cells=arguments.n_cells)
    asked = first_round(space)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(arguments.rows, 3, 32, 32, generator=generator).to(device, memory_format=torch.channels_last)
    seconds = time_kernels(space, asked, images, arguments.turns)
    n = len(asked) - 1
    rounds = {
        "ours": seconds["un-pruned, ours"] + n * seconds["one less, ours"],
        "one by one": n * (seconds["un-pruned, ours"] + seconds["one less, ours"]),
        "backward per row": n * (seconds["un-pruned, backward per row"] + seconds["one less, backward per row"]),
    }
    print(f"{space.name}, {arguments.init_channels} channels, {arguments.n_cells} cells: {n} removals a round")
    for name, taken in seconds.items():
        print(f"one kernel, {name:28} {taken:9.2f} s")
    for name, taken in rounds.items():
        whole = arguments.repeats * taken
        print(f"first round, {name:18} {whole / 60:9.1f} minutes  {taken / rounds['ours']:6.1f} × ours")
    if arguments.json:
        settings = settings_of(arguments)
        record = {"settings": settings, "machine": machine(device), "kernel_seconds": seconds, "round_seconds": rounds}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
