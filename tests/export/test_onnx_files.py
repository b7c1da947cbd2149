"""ONNX files in ONNX Runtime, against the networks and learners they come from."""

import random
import sys
from importlib import import_module

import pytest
import torch
from torch import Tensor

from metantk_nas.errors import UsageError
from metantk_nas.export.files import Exported, export
from metantk_nas.export.program import UnfitError, predictor_program
from metantk_nas.export.subject import Subject
from tests.export.networks import (
    IMAGE_SIZE,
    close,
    conv4,
    episode,
    features,
    predicted,
    saved_learner,
    short,
    subject_in,
)
from tests.networks.chunks import SPACES


@pytest.fixture(scope="module")
def runtime():
    pytest.importorskip("onnxscript", reason="onnxscript is in the extra 'export'")
    pytest.importorskip("onnx", reason="onnx is in the extra 'export'")
    return pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra 'export'")


def run(runtime, path, inputs: dict[str, Tensor]) -> Tensor:
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return torch.from_numpy(found)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_features_of_a_cell_network_agree(name, seed, runtime, tmp_path):
    subject = subject_in(short(name), seed)
    (path,) = export(subject, "onnx", tmp_path / "network.onnx").paths
    for n_rows in (1, 6):
        images = subject.images(n_rows, seed=n_rows)
        assert close(run(runtime, path, {"images": images}), features(subject, images), 1e-5)


@pytest.mark.parametrize("norm", ["batch_stats", "group"])
def test_features_agree_with_other_normalisations(norm, runtime, tmp_path):
    subject = subject_in(short("nas_bench_201"), 2, norm=norm)
    (path,) = export(subject, "onnx", tmp_path / "network.onnx").paths
    assert close(run(runtime, path, {"images": subject.images(3)}), features(subject, subject.images(3)), 1e-5)


@pytest.fixture(scope="module", params=["protonet", "kernel"])
def learner(request, runtime, tmp_path_factory) -> tuple[Subject, Exported]:
    """A learner and its files: one on cells, one on Conv-4."""
    folder, space = tmp_path_factory.mktemp(request.param), short("nas_bench_201")
    cells = {"arch": space.format(space.sample(random.Random(3))), "space": space}
    subject = saved_learner(folder, request.param, **(cells if request.param == "protonet" else {}))
    return subject, export(subject, "onnx", folder / "out.onnx")


def test_a_whole_learner_agrees_with_any_number_of_images(learner, runtime):
    subject, done = learner
    assert [path.name for path in done.paths] == ["out.onnx", "out_predictor.onnx"]
    images = subject.images(3)
    assert close(run(runtime, done.paths[0], {"images": images}), features(subject, images), 1e-5)
    for inputs in (episode(n_shot=1, n_query=1), episode(n_shot=5, n_query=7)):
        assert close(run(runtime, done.paths[1], inputs), predicted(subject, inputs), 1e-4)


def test_what_onnx_has_no_operator_for_is_said(runtime, tmp_path):
    onnx_model = import_module("metantk_nas.export.onnx_model")
    program = predictor_program(saved_learner(tmp_path, "kernel", inner_time=1.0))
    with pytest.raises(UnfitError, match=r"ONNX has no operator for aten\._linalg_eigh.*--format pt holds more"):
        onnx_model.onnx_bytes(program, {})


def test_a_file_is_valid_names_its_rows_and_tells_nothing_of_the_machine(learner):
    onnx = import_module("onnx")
    subject, done = learner
    said = {}
    for path in done.paths:
        model = onnx.load_from_string(path.read_bytes())
        onnx.checker.check_model(model, full_check=True)
        for value in (*model.graph.input, *model.graph.output):
            said[value.name] = [part.dim_param or part.dim_value for part in value.type.tensor_type.shape.dim]
        assert {prop.key: prop.value for prop in model.metadata_props} == {"arch": subject.arch, "images": "in [0, 1]"}
        assert not any(word in path.read_bytes() for word in (b"metantk_nas", b"site-packages", b"stack_trace"))
    image = [3, IMAGE_SIZE, IMAGE_SIZE]
    assert said == {
        "images": ["image", *image],
        "features": ["image", subject.network.n_features],
        "support_images": ["support", *image],
        "support_labels": ["support"],
        "query_images": ["query", *image],
        "logits": ["query", 3],
    }


@pytest.mark.parametrize("n", [1, 2, 9])
def test_loops_factorise_and_solve_as_pytorch_does(n, runtime):
    onnx_solve = pytest.importorskip("metantk_nas.export.onnx_solve")
    generator = torch.Generator().manual_seed(n)
    root, right = torch.randn(n, n, generator=generator), torch.randn(n, 3, generator=generator)
    matrix = root @ root.mT + 0.5 * torch.eye(n)
    factor, failed = run_function(runtime, onnx_solve.cholesky_ex, [matrix])
    assert close(factor, torch.linalg.cholesky(matrix), 1e-5)
    assert torch.equal(factor, factor.tril())
    assert failed.item() == 0
    (solved,) = run_function(runtime, onnx_solve.cholesky_solve, [right, factor])
    assert close(solved, torch.linalg.solve(matrix, right), 1e-4)


def test_a_matrix_that_is_not_positive_definite_is_told(runtime):
    onnx_solve = pytest.importorskip("metantk_nas.export.onnx_solve")
    _, failed = run_function(runtime, onnx_solve.cholesky_ex, [torch.tensor([[1.0, 2.0], [2.0, 1.0]])])
    assert failed.item() == 1


def run_function(runtime, function, inputs: list[Tensor]) -> list[Tensor]:
    """Run one of our ONNX functions alone."""
    content = function.to_model_proto().SerializeToString()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    found = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    return [torch.as_tensor(value) for value in found]


def test_without_the_libraries_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "metantk_nas.export.onnx_model", raising=False)
    with pytest.raises(
        UsageError, match=r"extra 'export' .*pip install 'metantk-nas\[export\]', or choose --format pt"
    ):
        export(conv4(), "onnx", tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())
