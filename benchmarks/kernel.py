"""What does a kernel cost? Ours against a training step's forward and backward, and against three other ways.

    python benchmarks/kernel.py --space darts_fewshot --threads 1 --json benchmarks/results/kernel.json

All methods see the same network (one genotype, weights of convolutions and linear layers), the same 30 images and give
the same NTK. The other ways have PyTorch's own layers, for our depthwise convolutions are part of ours. They take
turns, and medians are of processor time on a CPU. `opacus` needs `pip install .[bench]`.
"""

import argparse
import json
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from stock import with_pytorchs_layers
from timing import interleaved, machine, matmul_rate, settings_of
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from metantk_nas.depthwise import Depthwise
from metantk_nas.kernels.gram import layerwise_grams
from metantk_nas.networks.build import build_shared, resize
from metantk_nas.networks.cost import CostModel
from metantk_nas.networks.network import CellNetwork, Route, route
from metantk_nas.rng import python_generator
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Space
from metantk_nas.spaces.subspace import Architecture

N_OUTPUTS = 5
OURS = ("forward", "forward + backward", "ours")
"""What runs with our layers."""


class Alone(nn.Module):
    """A shared network that runs one architecture."""

    def __init__(self, network: CellNetwork, chunk: Route) -> None:
        super().__init__()
        self.network, self.chunk = network, chunk

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits."""
        return self.network(images, self.chunk)


def prepare(
    space: Space, architecture: Architecture, device: torch.device, *, stock: bool = True
) -> tuple[Alone, dict[str, nn.Parameter]]:
    """Build the network of one architecture, and name the parameters that count; ``stock`` has PyTorch's layers."""
    network = build_shared(space, n_outputs=N_OUTPUTS, in_channels=3, seed=0, device=device)
    chunk = route(space, [architecture], device)
    used = dict(network.users(chunk))
    for cell in network.cells_in_order:
        for name, operation in list(cell.ops.items()):
            if operation not in used:
                del cell.ops[name]
    for module in network.modules():
        if stock and isinstance(module, Depthwise):
            module.__class__ = nn.Conv2d
        for name, parameter in module.named_parameters(recurse=False):
            parameter.requires_grad_(isinstance(module, nn.Conv2d | nn.Linear) and name == "weight")
    alone = Alone(network, chunk)
    return alone, {name: weight for name, weight in alone.named_parameters() if weight.requires_grad}


def ours(model: Alone, images: Tensor) -> Tensor:
    """Compute the NTK layer by layer."""
    return layerwise_grams(model.network, model, images, head=model.network.head).ntk[0]


def forward_only(model: Alone, images: Tensor) -> None:
    """Run the network."""
    with torch.no_grad():
        model(images)


def forward_backward(model: Alone, weights: list[nn.Parameter], images: Tensor) -> None:
    """Compute the gradient that a training step needs."""
    torch.autograd.grad(model(images).sum(), weights)


def vmap_grad(model: Alone, weights: dict[str, nn.Parameter], images: Tensor) -> Tensor:
    """Compute the NTK by `torch.func`: the gradient of one row, vectorised."""

    def output(values: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(model, values, (image[None],)).sum()

    jacobian = vmap(grad(output), (None, 0))({name: weight.detach() for name, weight in weights.items()}, images)
    return sum(part.flatten(1) @ part.flatten(1).mT for part in jacobian.values())


def one_by_one(model: Alone, weights: list[nn.Parameter], images: Tensor) -> Tensor:
    """Compute the NTK with one backward pass per row."""
    rows = []
    for image in images:
        gradients = torch.autograd.grad(model(image[None]).sum(), weights)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    jacobian = torch.stack(rows)
    return jacobian @ jacobian.mT


def opacus_pass(space: Space, architecture: Architecture, images: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Name a function that computes the NTK from Opacus' per-sample gradients, if Opacus is installed."""
    try:
        from opacus import GradSampleModule  # noqa: PLC0415 - an extra of the benchmarks alone
    except ImportError:
        print("opacus is not installed: pip install .[bench]")
        return {}
    warnings.filterwarnings("ignore", "Full backward hook")
    model, weights = prepare(space, architecture, images.device)
    model.to(memory_format=torch.contiguous_format)  # Opacus 1.6 computes wrong gradients of channels-last convolutions
    wrapped = GradSampleModule(model, loss_reduction="sum").train()

    def run() -> Tensor:
        wrapped(images).sum().backward()
        kernel = torch.zeros(())
        for weight in weights.values():
            share = weight.grad_sample.flatten(1)
            kernel = kernel + share @ share.mT
            weight.grad = weight.grad_sample = None
        return kernel

    return {"opacus": run}


def compare(space: Space, architecture: Architecture, device: torch.device, *, rows: int, repeats: int) -> dict:
    """Time every method on one network."""
    own, own_weights = prepare(space, architecture, device, stock=False)
    model, weights = prepare(space, architecture, device)
    images = torch.randn(rows, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    parameters = list(weights.values())
    first, first_weights = prepare(space, architecture, device)
    first.to(memory_format=torch.contiguous_format)
    first_parameters = list(first_weights.values())
    methods: dict[str, Callable[[], object]] = {
        "forward": partial(forward_only, own, images),
        "forward + backward": partial(forward_backward, own, list(own_weights.values()), images),
        "same, PyTorch's layers": partial(forward_backward, model, parameters, images),
        "same, channels first": partial(forward_backward, first, first_parameters, images.contiguous()),
        "ours": partial(ours, own, images),
        "vmap(grad)": partial(vmap_grad, model, weights, images),
        "one backward a row": partial(one_by_one, model, parameters, images),
    }
    methods |= opacus_pass(space, architecture, images.contiguous())
    methods |= {name: with_pytorchs_layers(run) for name, run in methods.items() if name not in OURS}
    check_agreement(methods)
    seconds = interleaved(methods, repeats, device)
    macs = CostModel(space, n_outputs=N_OUTPUTS, in_channels=3, image_size=32)(architecture).macs
    return {"seconds": seconds, "gflop": 6 * macs * rows / 1e9}


def check_agreement(methods: dict[str, Callable[[], object]]) -> None:
    """Refuse to time methods that do not compute the same kernel."""
    expected = methods["ours"]()
    for name in methods.keys() & {"vmap(grad)", "one backward a row", "opacus"}:
        error = (methods[name]().double() - expected).norm() / expected.norm()
        if error > 1e-4:
            raise SystemExit(f"{name} gives another kernel: relative error {error:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="darts_fewshot")
    parser.add_argument("--init-channels", type=int)
    parser.add_argument("--n-cells", type=int)
    parser.add_argument("--arch", help="text of the genotype; drawn with --seed where absent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--supernet", action="store_true", help="the un-pruned network instead of one genotype")
    parser.add_argument("--rows", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    space = resize(load_space(arguments.space), init_channels=arguments.init_channels, n_cells=arguments.n_cells)
    drawn = space.sample(python_generator(arguments.seed, "benchmark"))
    given = space.parse(arguments.arch) if arguments.arch else drawn
    architecture = space.subspace() if arguments.supernet else given
    found = compare(space, architecture, device, rows=arguments.rows, repeats=arguments.repeats)
    floor = found["gflop"] * 1e9 / matmul_rate(device)
    seconds, step = found["seconds"], found["seconds"]["forward + backward"]
    print(
        f"{space.name}, {arguments.rows} rows, {found['gflop']:.1f} GFLOP, matrix products alone {floor * 1e3:.0f} ms"
    )
    for name, taken in seconds.items():
        ratio = f"{taken / step:5.2f} × forward + backward, {taken / seconds['ours']:5.2f} × ours"
        print(f"{name:20} {taken * 1e3:8.1f} ms  {ratio}")
    if arguments.json:
        settings = settings_of(arguments)
        record = {"settings": settings, "machine": machine(device), "floor_seconds": floor, **found}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
