"""Any network is scored as an architecture is."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import metantk_nas
from metantk_nas.errors import UsageError
from metantk_nas.experiment.modules import load_factory
from metantk_nas.networks.build import build_network, resize
from metantk_nas.networks.own import ONLY, OwnModule
from metantk_nas.rng import child_seed
from metantk_nas.scorers.kernel import KernelScorer
from metantk_nas.scorers.registry import METRICS
from metantk_nas.spaces.load import load_space
from tests.contracts.scorer import make_setup, noise_dataset
from tests.reference.dense_ntk import dense_metantk, dense_ntk

SMALL: dict[str, Any] = {"image_size": 12, "n_way": 3, "n_episodes": 2, "repeats": 1, "device": "cpu"}
CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|"
DARTS = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_3x3', 1), ('max_pool_3x3BN', 2), "
    "('conv_1x5_5x1', 0), ('conv_3x3', 3)], normal_concat=range(2, 5), "
    "reduce=[('avg_pool_3x3BN', 0), ('conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 2), "
    "('conv_3x3', 1), ('skip_connect', 3)], reduce_concat=range(2, 5))"
)
EVERY = [name for name in METRICS if name not in {"n_linear_regions", "latency_ms"}]


class Block(nn.Module):
    """A residual block as torchvision writes it: one in-place ReLU that runs twice."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride), nn.BatchNorm2d(channels))

    def forward(self, images: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(images)))))
        out += self.shortcut(images)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, in_channels: int = 3, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.blocks(self.relu(self.conv(images)))), 1))


def features_only(in_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.Dropout(0.5), nn.ReLU()
    )


def cell(n_outputs: int, in_channels: int) -> nn.Module:
    space = resize(load_space("nas_bench_201"), init_channels=4, n_cells=3)
    return build_network(CELL, space, n_outputs=n_outputs, in_channels=in_channels, seed=99)


def darts(n_outputs: int, in_channels: int) -> nn.Module:
    """With the normalisation before pooling that networks are scored with."""
    space = resize(load_space("darts_fewshot"), init_channels=4, n_cells=3)
    scored = replace(space, skeleton=replace(space.skeleton, final_norm=True))
    genotype = scored.representative(scored.parse(DARTS))
    return build_network(genotype, scored, n_outputs=n_outputs, in_channels=in_channels, seed=99)


@pytest.mark.parametrize(("space", "arch", "factory"), [("nas_bench_201", CELL, cell), ("darts_fewshot", DARTS, darts)])
def test_a_cell_as_a_plain_module_gets_the_row_of_its_text(space, arch, factory):
    metrics = ",".join(EVERY)
    sizes = {"init_channels": 4, "n_cells": 3, "space": space}
    ranking = metantk_nas.score([arch], modules={"mine": factory}, **SMALL, **sizes, metrics=metrics, rank_by="metantk")
    rows = ranking.frame.set_index("arch").drop(columns=["key", "seconds"])
    mine, its = rows.loc["mine"], rows.drop("mine").iloc[0]
    assert mine["rank"] == its["rank"] == 1
    assert mine["status"] == "ok"
    if space == "nas_bench_201":
        assert (mine["params"], mine["macs"]) == (its["params"], its["macs"])
    for name in set(EVERY) - {"params", "macs"}:
        assert mine[name] == pytest.approx(its[name], rel=1e-6), name


@pytest.mark.parametrize("factory", [ResNet, features_only])
def test_networks_written_by_hand_get_every_metric(factory):
    row = metantk_nas.score_module(factory, **SMALL, metrics=",".join(EVERY))
    assert (row["status"], row["arch"]) == ("ok", factory.__name__)
    assert all(np.isfinite(row[name]) for name in EVERY)
    assert row["condition_number"] > 1
    module = factory(in_channels=1)
    before = [parameter.clone() for parameter in module.parameters()]
    again = metantk_nas.score_module(module, **SMALL)
    assert again["trace"] == row["trace"], "a module stands for itself, and gets a head of n_way outputs"
    assert all(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


def test_params_and_macs_are_those_of_the_module_with_its_head():
    row = metantk_nas.score_module(features_only, **SMALL)
    head = 8 * 3 + 3
    assert row["params"] == 6 * 9 + 6 + 8 * 6 * 9 + 8 + head
    assert row["macs"] == 6 * 9 * 12 * 12 + 8 * 6 * 9 * 5 * 5 + 8 * 3


def test_synflow_goes_through_a_module_without_any_normalisation():
    def network(norm: Any) -> nn.Module:
        layers = (nn.Conv2d(1, 8, 3, bias=False), norm(8), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False), norm(8))
        return nn.Sequential(*layers, nn.ReLU())

    norms = (nn.BatchNorm2d, lambda channels: nn.GroupNorm(2, channels), lambda _: nn.Identity())
    flows = [metantk_nas.score_module(network(norm), **SMALL)["synflow"] for norm in norms]
    assert flows == [flows[0]] * 3


@pytest.mark.parametrize("factory", [ResNet, features_only])
def test_its_kernels_are_the_dense_ones(factory):
    setup = make_setup(dtype=torch.float64, seed=7)
    own = OwnModule("mine", factory, 3, 3, 12)
    setup = replace(setup, space=own, _networks={}, _rows={})
    (finding,) = KernelScorer(setup).score([ONLY], 1)
    network = own.build(child_seed(7, "repeat", 1), "group").double()
    theta = dense_ntk(network, setup.rows(1).images)
    meta = dense_metantk(theta, theta, n_episodes=2, n_support=3, n_query=3, tau=np.inf, reg=1e-3)
    eigenvalues = np.linalg.eigvalsh(meta)
    assert finding.values["ntk_trace"] == pytest.approx(np.trace(theta), rel=1e-7)
    assert finding.values["condition_number"] == pytest.approx(eigenvalues[-1] / eigenvalues[0], rel=1e-7)


def test_batch_norm_becomes_group_norm_and_weights_depend_on_the_seed_alone():
    own = OwnModule("mine", ResNet, 5, 1, 12)
    first, second, other = (own.build(seed, "group").state_dict() for seed in (1, 1, 2))
    assert not any("running_mean" in name for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["body.conv.weight"], other["body.conv.weight"])
    state = torch.random.get_rng_state()
    for factory in (ResNet, features_only):
        OwnModule("mine", factory, 5, 1, 12).build(3, "group")
    assert torch.equal(state, torch.random.get_rng_state())


def test_images_may_be_given():
    rows = [metantk_nas.score_module(ResNet, noise_dataset(n_images=count), **SMALL)["trace"] for count in (6, 8)]
    assert rows[0] != rows[1]


class Strange(nn.Module):
    """What cannot be scored, in several ways."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.LayerNorm(10) if kind == "layer norm" else nn.Identity()
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Any:
        maps = self.norm(self.conv(images))
        maps = maps.relu_() if self.kind == "in place" else maps
        maps = self.norm(self.conv(images[..., :12])) + maps if self.kind == "twice" else maps
        if self.kind == "batch":
            maps = maps - maps.mean(dim=0, keepdim=True)
        if self.kind == "bypass":
            return maps.mean(dim=(2, 3)) @ self.head.weight.T
        if self.kind == "crash":
            raise ValueError("no such thing")
        logits = self.head(maps.mean(dim=(2, 3)))
        return (logits, logits) if self.kind == "pair" else logits


@pytest.mark.parametrize(
    ("module", "metrics", "message"),
    [
        (lambda: Strange("layer norm"), "", "'norm' of type LayerNorm has weights that the kernel cannot see"),
        (lambda: Strange("twice"), "", r"Conv2d\(1, 4.* runs twice"),
        (lambda: Strange("batch"), "", "other logits beside other images"),
        (lambda: Strange("in place"), "", r"output of Conv2d\(1, 4.* is changed in place"),
        (lambda: Strange("bypass"), "", "weights of a layer without calling the layer"),
        (lambda: Strange("crash"), "", r"cannot run images of shape \[1, 1, 12, 12\] \(ValueError: no such thing"),
        (lambda: Strange("pair"), "", "puts out tuple; expected logits"),
        (lambda: Strange("fine"), "naswot", "naswot looks at nn.ReLU layers"),
        (lambda: Strange("fine"), "n_linear_regions", "leave this metric out"),
        (lambda width: nn.Linear(width, 2), "", "could not be built .*width.*; expected a factory"),
        (lambda: 3, "", "the factory returned 3; expected a torch.nn.Module"),
        (lambda: nn.Conv2d(3, 4, 3), "", "cannot run images"),
    ],
)
def test_what_would_get_a_wrong_row_is_refused(module, metrics, message):
    with pytest.raises(UsageError, match=message):
        metantk_nas.score_module(module, **SMALL, metrics=metrics)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere", "expected package.module:factory"),
        ("nowhere:factory", "nowhere cannot be imported"),
        ("torch.nn:Conv3", "factory of torch.nn 'Conv3' not found"),
        ("torch:__version__", "expected a class or a function"),
    ],
)
def test_a_factory_that_is_not_there_is_named(text, message):
    with pytest.raises(UsageError, match=message):
        load_factory(text)


MINE = """
from torch import nn

def small(n_outputs, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, n_outputs),
    )
"""


def test_the_command_ranks_a_module_of_the_working_directory_beside_architectures(tmp_path):
    (tmp_path / "mynets.py").write_text(MINE, encoding="utf-8")
    words = [
        "score",
        CELL,
        "--space",
        "nas_bench_201",
        "--init-channels",
        4,
        "--n-cells",
        3,
        "--module",
        "mynets:small",
    ]
    small = ["--image-size", 12, "--n-way", 3, "--repeats", 1, "--metrics", "latency_ms", "--out", "kept", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    line = [sys.executable, "-m", "metantk_nas", *map(str, [*words, *small])]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    rows = {row["arch"]: row for row in json.loads(done.stdout)}
    assert rows.keys() == {CELL, "mynets:small"}
    assert rows["mynets:small"].keys() == rows[CELL].keys()
    assert all(row["latency_ms"] > 0 and row["status"] == "ok" for row in rows.values())
    assert sorted(row["rank"] for row in rows.values()) in ([1, 2], [1, 1])
    assert (tmp_path / "kept" / "ranking.csv").exists()
    manifest = json.loads((tmp_path / "kept" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["latency"]["batch"] == 1
    assert manifest["rank_rule"]["name"] == "few-shot"
