import copy
import gc
import weakref
from typing import Any, Literal
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from metantk_nas.depthwise import Depthwise, weight_gradient
from metantk_nas.errors import UsageError
from metantk_nas.kernels import gram
from metantk_nas.kernels.gram import Grams, ParameterChoice, layerwise_grams, ntk
from metantk_nas.networks.build import build_shared, resize
from metantk_nas.networks.conv4 import Conv4
from metantk_nas.networks.network import CellNetwork, route
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.space import Space
from tests.contracts.space import draw
from tests.networks.chunks import NOTHING, SPACES, as_if_trained, build_alone, images, small
from tests.reference.dense_ntk import dense_ntk
from tests.spaces.strategies import genotypes, spaces

N_OUTPUTS = 3
EVERYTHING = ParameterChoice(biases=True, norm_affine=True)


def shared_grams(network: CellNetwork, space: Space, chunk: list[Genotype], rows: Tensor, **options: object) -> Grams:
    used = route(space, chunk)
    return layerwise_grams(
        network,
        lambda images: network(images, used),
        rows,
        head=network.head,
        n_candidates=len(chunk),
        users=dict(network.users(used)),
        **options,
    )


def shared(space: Space, *, seed: int = 0) -> CellNetwork:
    return build_shared(space, n_outputs=N_OUTPUTS, in_channels=2, seed=seed)


def distance(found: Tensor, expected: np.ndarray) -> float:
    """Largest difference relative to the largest entry."""
    return float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("output_reduction", ["sum", "trace"])
@pytest.mark.parametrize("name", SPACES)
def test_a_chunk_equals_one_gradient_per_row_of_each_candidate_built_alone(
    name: str, output_reduction: Literal["sum", "trace"]
) -> None:
    space, rows = small(name), images(5)
    chunk = draw(space, 3)
    single = shared_grams(shared(space), space, chunk, rows.float(), output_reduction=output_reduction)
    double = shared_grams(shared(space).double(), space, chunk, rows, output_reduction=output_reduction)
    assert single.ntk.dtype == single.head.dtype == torch.float64
    for candidate, genotype in enumerate(chunk):
        alone = build_alone(space, genotype).double()
        every_output = output_reduction == "trace"
        for part, only in (("ntk", ""), ("head", "head")):
            expected = dense_ntk(alone, rows, only=only, every_output=every_output)
            assert distance(getattr(double, part)[candidate], expected) < 1e-8
            assert distance(getattr(single, part)[candidate], expected) < 1e-4


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("norm_affine", [False, True])
@pytest.mark.parametrize("name", SPACES)
def test_biases_and_normalisation_count_where_asked(name: str, biases: bool, norm_affine: bool) -> None:
    space, rows = small(name), images(4)
    chunk = draw(space, 2, seed=1)
    network = as_if_trained(shared(space).double())
    options = {"biases": biases, "norm_affine": norm_affine}
    found = shared_grams(network, space, chunk, rows, parameters=ParameterChoice(**options))
    for candidate, genotype in enumerate(chunk):
        alone = as_if_trained(build_alone(space, genotype).double())
        assert distance(found.ntk[candidate], dense_ntk(alone, rows, **options)) < 1e-8
        assert distance(found.head[candidate], dense_ntk(alone, rows, only="head", **options)) < 1e-8


@pytest.mark.parametrize("name", SPACES)
def test_a_kernel_has_the_same_bits_in_every_chunk(name: str) -> None:
    """Sums run in the order of the edges, forward and backward, whoever shares the chunk, so near ties stay."""
    space, rows = resize(small(name), init_channels=16), images(16, size=16).float()
    network, chunk = shared(space), draw(space, 12)
    if name == "nas_bench_201":  # a state that is another's, read by several: its gradients could add up in any order
        chunk += [
            space.parse("|skip_connect~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|")
        ]
    together = shared_grams(network, space, chunk, rows).ntk
    for found, genotype in zip(together, chunk, strict=True):
        assert torch.equal(found, shared_grams(network, space, [genotype], rows).ntk[0])


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_in_any_space_a_chunk_equals_its_candidates_alone(data: st.DataObject) -> None:
    """Logits, NTK and head Gram; the order of the chunk is the order of the results."""
    space = data.draw(spaces(max_nodes=3, max_ops=4))
    chunk = data.draw(st.lists(genotypes(space), min_size=1, max_size=4))
    network, rows = as_if_trained(shared(space, seed=3).double()), images(3, size=9)
    grams = shared_grams(network, space, chunk, rows)
    logits = network(rows, route(space, chunk)).unflatten(0, (len(chunk), len(rows)))
    for candidate, genotype in enumerate(chunk):
        alone = as_if_trained(build_alone(space, genotype, seed=3).double())
        expected = layerwise_grams(alone, alone, rows, head=alone.head)
        close = {"rtol": 1e-8, "atol": 1e-8 * float(expected.ntk.abs().max())}
        torch.testing.assert_close(logits[candidate], alone(rows), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(grams.ntk[candidate], expected.ntk[0], **close)
        torch.testing.assert_close(grams.head[candidate], expected.head[0], **close)


@pytest.mark.parametrize("parameters", [None, EVERYTHING])
def test_features_that_no_image_reaches_still_have_a_kernel(parameters: ParameterChoice | None) -> None:
    """After training, a cell without a path outputs what its biases say: equal rows, but not zero."""
    space, rows = small("nas_bench_201"), images(3)
    nothing = space.parse(NOTHING)
    something = draw(space, 1)[0]
    network = as_if_trained(shared(space).double())
    found = shared_grams(network, space, [nothing, something], rows, parameters=parameters)
    options = {"biases": parameters is not None, "norm_affine": parameters is not None}
    for candidate, genotype in enumerate([nothing, something]):
        alone = as_if_trained(build_alone(space, genotype).double())
        assert distance(found.ntk[candidate], dense_ntk(alone, rows, **options)) < 1e-8
        alone_found = layerwise_grams(alone, alone, rows, head=alone.head, parameters=parameters)
        torch.testing.assert_close(found.ntk[candidate], alone_found.ntk[0], rtol=1e-10, atol=1e-10)


class Odds(nn.Module):
    """Layers that no cell has: strides, dilations and groups of all kinds, and a linear layer on positions."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 6, (3, 2), stride=(2, 1), padding=(0, 1), bias=True),
            nn.BatchNorm2d(6),
            nn.Tanh(),
            nn.Conv2d(6, 9, 3, padding=2, dilation=2, groups=3),
            nn.GroupNorm(3, 9),
            nn.Conv2d(9, 18, (1, 3), groups=9),
            nn.Tanh(),
        )
        self.positions = nn.Linear(18, 4)
        self.head = nn.Linear(4, N_OUTPUTS)

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.head(self.positions(self.body(rows).flatten(2).transpose(1, 2)).tanh().mean(1))
        return out


@pytest.mark.parametrize("parameters", [ParameterChoice(), EVERYTHING])
def test_it_holds_for_modules_that_are_no_network_of_ours(parameters: ParameterChoice) -> None:
    torch.manual_seed(0)
    odds, conv4 = Odds().double(), Conv4(2, N_OUTPUTS, width=4, image_size=16).double()
    for network, rows in ((odds, images(4, size=9)), (conv4, images(4, size=16))):
        network(images(8, size=rows.shape[-1], seed=1))  # running statistics of their own
        as_if_trained(network).eval()
        found = layerwise_grams(network, network, rows, head=network.head, parameters=parameters)
        options = {"biases": parameters.biases, "norm_affine": parameters.norm_affine}
        assert distance(found.ntk[0], dense_ntk(network, rows, **options)) < 1e-8
        assert distance(found.head[0], dense_ntk(network, rows, only="head", **options)) < 1e-8


def test_the_kernel_of_a_linear_function_is_its_inputs_gram() -> None:
    """Two parameters: f(x) = w·x has ∂f/∂w = x."""
    network = nn.Linear(2, 1, bias=False)
    rows = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 0.5]])
    torch.testing.assert_close(ntk(network, rows, head=network), (rows @ rows.T).double())


def test_the_kernel_is_symmetric_and_positive_semi_definite() -> None:
    space = small("darts_fewshot")
    found = shared_grams(shared(space).double(), space, draw(space, 4), images(6))
    for kernel in (*found.ntk, *found.head, *(found.ntk - found.head)):
        torch.testing.assert_close(kernel, kernel.T, rtol=1e-12, atol=1e-12)
        eigenvalues = torch.linalg.eigvalsh(kernel)
        assert eigenvalues[0] > -1e-12 * eigenvalues[-1]


def test_permuting_rows_permutes_the_kernel() -> None:
    space, rows = small("darts"), images(5)
    network, chunk = shared(space).double(), draw(space, 2)
    order = torch.tensor([3, 0, 4, 1, 2])
    before, after = (shared_grams(network, space, chunk, some).ntk for some in (rows, rows[order]))
    torch.testing.assert_close(after, before[:, order][:, :, order], rtol=1e-10, atol=1e-10)


def test_nothing_is_left_behind() -> None:
    space, rows = small("nas_bench_201"), images(3).float()
    network = shared(space)
    network.stem[0].weight.requires_grad_(False)
    flags = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    state, generator = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    first = shared_grams(network, space, draw(space, 2), rows)
    assert not rows.requires_grad
    assert not first.ntk.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert {name: parameter.requires_grad for name, parameter in network.named_parameters()} == flags
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(shared_grams(network, space, draw(space, 2), rows).ntk, first.ntk)


def test_the_graph_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks of a tensor that refer to it are a circle the garbage collector cannot see: 2 MB a call leaked once."""
    tapes: list[weakref.ref[gram._Tape]] = []

    class Watched(gram._Tape):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            tapes.append(weakref.ref(self))

    monkeypatch.setattr(gram, "_Tape", Watched)
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    ntk(network, torch.ones(2, 3), head=network[2])
    gc.collect()
    assert [tape() for tape in tapes] == [None]


def test_hooks_are_gone_after_an_error() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(3, 1))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ntk(network, torch.ones(2, 2), head=network[1])
    assert not any(module._forward_hooks for module in network.modules())


def test_a_caller_that_records_no_gradients_gets_the_same_kernel() -> None:
    network, rows = nn.Linear(2, 1), torch.eye(2)
    with torch.no_grad():
        assert torch.equal(ntk(network, rows, head=network), torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(2).train(), nn.BatchNorm2d(2, track_running_stats=False).eval(), nn.BatchNorm1d(2)]
)
def test_a_network_that_mixes_rows_is_refused(norm: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(2, 2, 1), norm)
    with pytest.raises(UsageError, match=r"module '1' normalises over the batch.*network\.eval\(\)"):
        ntk(network, images(2), head=network[0])


@pytest.mark.parametrize("layer", [nn.ConvTranspose2d(2, 2, 1), nn.PReLU()])
def test_weights_that_no_rule_covers_are_refused(layer: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(2, 2, 1), layer)
    with pytest.raises(UsageError, match=rf"module '1' of type {type(layer).__name__} has weights.*Conv2d.*Linear"):
        ntk(network, images(2), head=network[0])


@pytest.mark.parametrize("options", [{"padding": "same"}, {"padding": 1, "padding_mode": "circular"}])
def test_padding_that_the_rules_do_not_know_is_refused(options: dict[str, object]) -> None:
    network = nn.Sequential(nn.Conv2d(2, 2, 3, **options))
    with pytest.raises(UsageError, match=r"convolution '0' pads by .*expected zeros"):
        ntk(network, images(2), head=network[0])


def test_a_layer_that_runs_twice_is_refused() -> None:
    """The gradient of a weight that is used twice is a sum, which layer by layer cannot see."""
    layer = nn.Linear(2, 2)
    with pytest.raises(UsageError, match=r"Linear\(.*runs twice"):
        ntk(nn.Sequential(layer, layer), torch.ones(2, 2), head=layer)


def test_weight_gradients_of_depthwise_convolutions_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), Depthwise(2, 3), Depthwise(2, 3), nn.Flatten(), nn.Linear(18, 2))
    network[2].weight.requires_grad_(False)
    before = [parameter.requires_grad for parameter in network.parameters()]
    computed = Mock(side_effect=weight_gradient)
    monkeypatch.setattr("metantk_nas.depthwise.weight_gradient", computed)
    rows = torch.randn(3, 1, 5, 5)
    ntk(network, rows, head=network[4])
    assert not computed.called
    assert [parameter.requires_grad for parameter in network.parameters()] == before
    torch.autograd.grad(network(rows).sum(), network[1].weight)
    assert computed.called
