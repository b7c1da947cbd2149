from pathlib import Path

import pytest
import torch

from metantk_nas.errors import RunError
from metantk_nas.learners.registry import make_learner
from metantk_nas.learners.saved import NetworkSpec, TrainedLearner, load_learner, save_learner
from metantk_nas.networks.build import resize
from metantk_nas.spaces.load import load_space
from tests.contracts.learner import DARTS_CELL


def saved(path: Path) -> TrainedLearner:
    space = resize(load_space("darts_fewshot"), init_channels=4, n_cells=3)
    learner = make_learner("protonet")
    spec = NetworkSpec(DARTS_CELL, space, 5, 3, 16)
    trained = TrainedLearner(
        learner, learner.make_model(spec.build(learner.norm, seed=1)).eval(), spec, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1)
    )
    save_learner(trained, path)
    return trained


def test_a_searched_cell_comes_back_with_its_space(tmp_path: Path) -> None:
    trained = saved(tmp_path / "learner.pt")
    loaded = load_learner(tmp_path / "learner.pt")
    assert loaded.network == trained.network
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(3)
    before, after = (some.adapt(images[:3], labels, 3)(images[3:]) for some in (trained, loaded))
    assert torch.equal(before, after)
    assert [path.name for path in tmp_path.iterdir()] == ["learner.pt"]


def test_images_are_normalised_as_in_training(tmp_path: Path) -> None:
    trained = saved(tmp_path / "learner.pt")
    mean = torch.tensor(trained.mean).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    torch.testing.assert_close(trained.normalise(mean), torch.zeros(2, 3, 4, 4))
    torch.testing.assert_close(trained.normalise(mean + 0.2)[0, :, 0, 0], torch.tensor([1.0, 1.0, 2.0]))


def test_adapting_keeps_no_graph(tmp_path: Path) -> None:
    trained = saved(tmp_path / "learner.pt")
    assert not trained.adapt(torch.randn(2, 3, 16, 16), torch.arange(2), 2)(torch.randn(1, 3, 16, 16)).requires_grad


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('the file was executed')",)


@pytest.mark.parametrize("content", [{"learner": Evil()}, {"weights": {}}, [1, 2], b"text"])
def test_other_files_are_refused_and_never_executed(content: object, tmp_path: Path) -> None:
    path = tmp_path / "learner.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(RunError, match=r"learner\.pt is not a trained learner"):
        load_learner(path)


def test_weights_that_do_not_fit_the_architecture_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "learner.pt"
    saved(path)
    content = torch.load(path, weights_only=True)
    content["network"]["n_outputs"] = 6
    torch.save(content, path)
    with pytest.raises(RunError, match=r"not a trained learner of this version.*network.head.weight"):
        load_learner(path)


def test_a_setting_that_the_file_is_silent_about_is_not_guessed(tmp_path: Path) -> None:
    saved(tmp_path / "learner.pt")
    content = torch.load(tmp_path / "learner.pt", weights_only=True)
    del content["settings"]["learn_scale"]
    torch.save(content, tmp_path / "learner.pt")
    with pytest.raises(RunError, match=r"of this version: it was trained before there was learn_scale; train it again"):
        load_learner(tmp_path / "learner.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"none\.pt is not a trained learner that can be read.*No such file"):
        load_learner(tmp_path / "none.pt")


@pytest.mark.parametrize("claim", [{"arch": "conv4-1024"}, {"n_outputs": 10**7}])
def test_a_network_that_is_larger_than_its_file_is_refused_before_it_is_built(
    claim: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt"
    learner, spec = make_learner("protonet"), NetworkSpec("conv4", None, 5, 1, 16)
    save_learner(TrainedLearner(learner, learner.make_model(spec.build(learner.norm)), spec, (0.0,), (1.0,)), path)
    content = torch.load(path, weights_only=True)
    content["network"] |= claim
    torch.save(content, path)
    monkeypatch.setattr(torch.nn.Module, "to_empty", None)  # what takes the memory
    with pytest.raises(RunError, match="its network has more weights than the file"):
        load_learner(path)
