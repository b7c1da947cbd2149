"""Python source of a network that imports PyTorch alone, with parameters named as here.

The structure is read off the network's layers, so there is nothing to keep in step with how they are stacked.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from torch import nn

from metantk_nas.export.blocks import blocks_for
from metantk_nas.export.cell_source import INPUTS, WIDTH, cell_class, cell_parameters, listed
from metantk_nas.export.subject import Subject
from metantk_nas.networks.cell import Cell as CellLayers
from metantk_nas.networks.conv4 import Conv4
from metantk_nas.networks.mlp import Mlp
from metantk_nas.networks.network import CellNetwork
from metantk_nas.networks.ops import FactorizedReduction
from metantk_nas.spaces.genotype import Genotype

BASELINES: Mapping[type[nn.Module], str] = {
    Conv4: "Conv-4, the four-block baseline of the few-shot literature.",
    Mlp: "The multi-layer perceptron of the sine benchmark.",
}

_NORMALISE = '''def normalise(images: Tensor) -> Tensor:
    """Normalise images in [0, 1] as the training images were."""
    mean, std = (torch.tensor(part, device=images.device).view(1, -1, 1, 1) for part in (MEAN, STD))
    return (images - mean) / std
'''


def python_source(subject: Subject, *, weights: str = "") -> str:
    """Write the module of a network.

    Args:
        subject: what to write.
        weights: name of the file that holds its state dict, for the example in the docstring.

    Returns:
        A Python file with a class ``Network`` whose state dict is that of the network. It needs no more than PyTorch,
        and holds the operations that the genotype uses and no others.
    """
    if isinstance(subject.network, CellNetwork) and subject.genotype is not None:
        classes = [*_cell_classes(subject.network, subject.genotype), _cell_network(subject)]
    elif isinstance(subject.network, Conv4):
        classes = [_conv4(subject)]
    else:
        classes = [_mlp(subject)]
    blocks = [*blocks_for("\n".join(classes), subject.norm), *classes]
    if subject.trained is not None:
        blocks.insert(0, _NORMALISE)
    body = "\n\n".join(blocks)
    return "\n".join([_docstring(subject, weights), _imports(body), *_constants(subject), "", body])


def _docstring(subject: Subject, weights: str) -> str:
    space = subject.space
    title = f"Network of the search space {space.name}." if space else BASELINES[type(subject.network)]
    lines = [f'"""{title}', ""]
    if space is not None:
        about = [
            f"{plain[0].upper()}{plain[1:]}." for text in (space.description, space.source) if (plain := _plain(text))
        ]
        lines += [*textwrap.wrap(" ".join(about), WIDTH - 10), ""] if about else []
        lines += ["The architecture:", "", *_indented(_breakable(subject.arch)), ""]
    if subject.trained is not None:
        lines += [f"Images are {_shape(subject)}, in [0, 1].", ""]
    lines += [
        "It needs PyTorch alone, and names its parameters as metantk-nas does. On a CPU it is faster after",
        "``model.to(memory_format=torch.channels_last)``. To use it:",
        "",
        "    model = Network()",
    ]
    if weights:
        lines.append(f'    model.load_state_dict(torch.load("{_plain(weights)}", weights_only=True))')
    images = "images" if subject.trained is None else "normalise(images)"
    lines += [f"    logits = model.eval()({images})", '"""', ""]
    return "\n".join(lines)


def _shape(subject: Subject) -> str:
    spec = subject.spec
    return f"``[row, {spec.in_channels:d}, {spec.image_size:d}, {spec.image_size:d}]``"


def _imports(body: str) -> str:
    lines = ["import torch"] if re.search(r"(?<![\w.])torch\.", body) else []
    lines.append("from torch import Tensor, nn")
    lines += ["from torch.nn import functional"] if "functional." in body else []
    return "\n".join(lines) + "\n"


def _constants(subject: Subject) -> list[str]:
    """Mean and deviation of the training images; whatever a file holds is written as numbers."""
    if subject.trained is None:
        return []
    mean, std = (tuple(float(value) for value in part) for part in (subject.trained.mean, subject.trained.std))
    return [f"MEAN = {mean}\nSTD = {std}\n"]


def _cell_classes(network: CellNetwork, genotype: Genotype) -> list[str]:
    """Write a class for every cell type that the network has cells of."""
    layers = _layers_by_type(network)
    return [
        cell_class(_class_name(cell_type, genotype), cell, layers[cell_type])
        for cell_type, cell in genotype.cells
        if cell_type in layers
    ]


def _layers_by_type(network: CellNetwork) -> dict[str, list[CellLayers]]:
    found: dict[str, list[CellLayers]] = {}
    for layers, cell_type in zip(network.cells_in_order, network.cell_types, strict=True):
        found.setdefault(cell_type, []).append(layers)
    return found


def _class_name(cell_type: str, genotype: Genotype) -> str:
    return "Cell" if len(genotype.cells) == 1 else f"{cell_type.capitalize()}Cell"


def _cell_network(subject: Subject) -> str:
    """Write the class ``Network`` of stacked cells."""
    network: Any = subject.network
    genotype: Any = subject.genotype
    width = network.stem[0].out_channels
    body = [
        f"        self.stem = nn.Sequential(nn.Conv2d(in_channels, {width}, 3, padding=1, bias=False), norm({width}))",
        *listed("bridges", _bridges(network), "ModuleDict"),
        *listed("cells", _cells(network, genotype), "ModuleList"),
    ]
    has_final = not isinstance(network.final, nn.Identity)
    if has_final:
        body.append(f"        self.final = nn.Sequential(norm({network.n_features}), nn.ReLU())")
    pooled = "self.final(previous)" if has_final else "previous"
    features = [*_stacked(network), f"        return {pooled}.mean(dim=(-2, -1))"]
    title = f"Stem, {len(network.cells)} cells, global average pooling and a linear head."
    return _network_class(subject, title, body, features)


def _stacked(network: CellNetwork) -> list[str]:
    """Lines that run stem and cells."""
    names = ", ".join(INPUTS[network.space.n_inputs])
    step = f"previous, cell({names})" if network.space.n_inputs == 2 else f"cell({names})"
    start = f"        {' = '.join(INPUTS[network.space.n_inputs])} = self.stem(images)"
    if not network.bridges:
        return [start, "        for cell in self.cells:", f"            {names} = {step}"]
    return [
        start,
        "        for index, cell in enumerate(self.cells):",
        "            if str(index) in self.bridges:",
        "                previous = self.bridges[str(index)](previous)",
        f"            {names} = {step}",
    ]


def _bridges(network: CellNetwork) -> list[str]:
    bridges: Mapping[str, Any] = dict(network.bridges.items())
    return [
        f'"{index}": ResidualReduction({bridge.first[1].in_channels}, {bridge.first[1].out_channels})'
        for index, bridge in bridges.items()
    ]


def _cells(network: CellNetwork, genotype: Genotype) -> list[str]:
    """Expressions that build the cells; three or more in a row that are alike are written once."""
    groups = _layers_by_type(network)
    wanted = {cell_type: cell_parameters(genotype.cell(cell_type), layers) for cell_type, layers in groups.items()}
    calls = [
        f"{_class_name(cell_type, genotype)}({_arguments(layers, wanted[cell_type])})"
        for layers, cell_type in zip(network.cells_in_order, network.cell_types, strict=True)
    ]
    entries: list[str] = []
    for call, alike in groupby(calls):
        n = len(list(alike))
        entries += [f"*({call} for _ in range({n}))"] if n > 2 else [call] * n
    return entries


def _arguments(layers: CellLayers, wanted: Sequence[str]) -> str:
    """Keyword arguments of one cell."""
    names = INPUTS[layers.n_inputs]
    values: dict[str, object] = {
        name: _channels_in(module, layers) for name, module in zip(names, layers.preprocess, strict=True)
    }
    values["channels"] = layers.channels
    if isinstance(layers.preprocess[0], FactorizedReduction):
        values["halve_before"] = True
    return ", ".join(f"{name}={value}" for name, value in values.items() if name in wanted)


def _channels_in(module: Any, layers: CellLayers) -> int:
    """Channels of the input that a module fits to the cell."""
    if isinstance(module, nn.Identity):
        return layers.channels
    return int((module.even if isinstance(module, FactorizedReduction) else module[1]).in_channels)


def _conv4(subject: Subject) -> str:
    blocks: Any = subject.network.blocks
    widths = ", ".join(str(block[0].out_channels) for block in blocks)
    block = "strided_block" if blocks[0][0].stride == (2, 2) else "conv_block"
    body = [
        f"        widths = in_channels, {widths}",
        f"        blocks = ({block}(widths[i], widths[i + 1]) for i in range({len(blocks)}))",
        "        self.blocks = nn.Sequential(*blocks)",
    ]
    features = ["        return torch.flatten(self.blocks(images), 1)"]
    return _network_class(subject, "Four blocks of convolutions and a linear head.", body, features)


def _mlp(subject: Subject) -> str:
    layers: Any = subject.network.layers
    width = layers[0].out_features
    stack = f"nn.Linear(in_channels, {width}), nn.ReLU(), nn.Linear({width}, {width}), nn.ReLU()"
    body = [f"        self.layers = nn.Sequential({stack})"]
    features = ["        return self.layers(torch.flatten(images, 1))"]
    return _network_class(
        subject, "Two hidden layers and a linear head; rows of numbers stand for images.", body, features
    )


def _network_class(subject: Subject, title: str, body: Sequence[str], features: Sequence[str]) -> str:
    """Write the class ``Network``, given the lines that build its layers but the head, and those of its features."""
    spec, n_features = subject.spec, subject.network.n_features
    arguments = f"in_channels: int = {spec.in_channels:d}, n_outputs: int = {spec.n_outputs:d}"
    return "\n".join(
        [
            "class Network(nn.Module):",
            f'    """{title}',
            "",
            "    Args:",
            "        in_channels: channels of the images.",
            "        n_outputs: outputs of the head.",
            '    """',
            "",
            f"    def __init__(self, {arguments}) -> None:",
            "        super().__init__()",
            *body,
            f"        self.n_features = {n_features}",
            "        self.head = nn.Linear(self.n_features, n_outputs)",
            "",
            "    def features(self, images: Tensor) -> Tensor:",
            f'        """Compute features ``[row, {n_features}]`` of images ``[row, channel, height, width]``."""',
            *features,
            "",
            "    def forward(self, images: Tensor) -> Tensor:",
            '        """Compute logits ``[row, n_outputs]`` of images."""',
            "        return self.head(self.features(images))",
            "",
        ]
    )


def _plain(text: str) -> str:
    """Text that cannot end a docstring: printable characters on one line, without quotes and backslashes."""
    safe = "".join(letter if letter.isprintable() and letter not in '\\"' else " " for letter in text)
    return textwrap.shorten(safe, 300, placeholder=" …").rstrip(".")


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH - 10, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


def _breakable(arch: str) -> str:
    """Give a long text without spaces, NAS-Bench-201's, places to break; it stays readable for the package."""
    return arch if len(arch) < WIDTH - 10 or " " in arch else arch.replace("+", " + ").replace("|", "| ").strip()
