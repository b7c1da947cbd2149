"""PyTorch programs: the same outputs in a process without this package, for any number of rows."""

import io
import random
import zipfile
from dataclasses import replace

import pytest
import torch

from metantk_nas.errors import UsageError
from metantk_nas.export.files import export
from metantk_nas.export.program import ExportError, UnfitError, features_program, predictor_program, program_bytes
from tests.export.networks import close, conv4, episode, features, predicted, saved_learner, short, subject_in
from tests.networks.chunks import NOTHING, SPACES


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_features_of_a_cell_network_agree_elsewhere(name, seed, abroad, tmp_path):
    subject = subject_in(short(name), seed)
    (path,) = export(subject, "pt", tmp_path / "network.pt2").paths
    for n_rows in (1, 2, 7):
        images = subject.images(n_rows, seed=n_rows)
        (found,) = abroad(path, {"images": images})
        assert close(found, features(subject, images), 1e-6)


@pytest.mark.parametrize("norm", ["batch_stats", "group", "none"])
def test_features_agree_with_every_normalisation(norm, abroad, tmp_path):
    subject = subject_in(short("nas_bench_201"), 1, norm=norm)
    (path,) = export(subject, "pt", tmp_path / "network.pt2").paths
    (found,) = abroad(path, {"images": subject.images(3)})
    assert close(found, features(subject, subject.images(3)), 1e-5)


def test_a_cell_without_a_path_is_exported_too(abroad, tmp_path):
    space = short("nas_bench_201")
    subject = subject_in(space, space.parse(NOTHING))
    (path,) = export(subject, "pt", tmp_path / "network.pt2").paths
    (found,) = abroad(path, {"images": subject.images(3)})
    assert close(found, features(subject, subject.images(3)), 1e-6)


@pytest.mark.parametrize("name", ["protonet", "kernel"])
def test_a_whole_learner_agrees_elsewhere_with_other_numbers_of_images(name, abroad, tmp_path):
    space = short("nas_bench_201")
    cells = {"arch": space.format(space.sample(random.Random(3))), "space": space}
    subject = saved_learner(tmp_path, name, **(cells if name == "protonet" else {}))
    done = export(subject, "pt", tmp_path / "out.pt2")
    assert [path.name for path in done.paths] == ["out.pt2", "out_predictor.pt2"]
    images = subject.images(3)
    (found,) = abroad(done.paths[0], {"images": images})
    assert close(found, features(subject, images), 1e-5)
    for inputs in (episode(n_shot=1, n_query=1), episode(n_shot=4, n_query=6)):
        (found,) = abroad(done.paths[1], inputs)
        assert close(found, predicted(subject, inputs), 1e-4)


def test_a_learner_without_a_head_takes_other_numbers_of_classes(tmp_path):
    program = predictor_program(saved_learner(tmp_path, "protonet"), n_way=4)
    assert program.expected.shape == (4, 4)


@pytest.mark.parametrize(("name", "reason"), [("maml", ""), ("anil", "it takes gradients"), ("rfs", "numpy")])
def test_a_learner_that_no_graph_can_hold_says_why(name, reason, tmp_path):
    subject = saved_learner(tmp_path, name)
    with pytest.raises(UnfitError, match=f"'{name}' is no fixed computation.*{reason}.*features of its network can be"):
        predictor_program(subject)


def test_a_head_of_other_classes_is_refused(tmp_path):
    with pytest.raises(UsageError, match="trained for 3-way episodes and got 4 classes") as error:
        predictor_program(saved_learner(tmp_path, "kernel"), n_way=4)
    assert not isinstance(error.value, UnfitError)


def test_an_architecture_has_no_predictor():
    with pytest.raises(UnfitError, match="no trained learner of images"):
        predictor_program(conv4())


def test_what_computes_something_else_is_not_written(tmp_path, monkeypatch):
    program = features_program(conv4())
    wrong = replace(program, expected=program.expected * 1.001)
    with pytest.raises(ExportError, match=r"differ from the network's by 1\.0e-03"):
        program_bytes(wrong)
    not_a_number = replace(program, expected=program.expected * torch.nan)
    with pytest.raises(ExportError):
        program_bytes(not_a_number)


def test_a_program_does_not_tell_where_it_was_made():
    content = program_bytes(features_program(subject_in(short("nas_bench_201"))))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = [archive.read(name) for name in archive.namelist()]
    assert not any(word in part for part in parts for word in (b"metantk_nas/", b"site-packages", b'.py"'))
