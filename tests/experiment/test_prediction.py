"""Labelling images from a handful of labelled ones, as a user would: files in, CSV out."""

import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from metantk_nas.cli.app import app
from metantk_nas.episodes.load import load_dataset
from metantk_nas.errors import DataError, RunError, UsageError
from metantk_nas.experiment.prediction import predict
from metantk_nas.learners.base import bind
from metantk_nas.learners.registry import make_learner
from metantk_nas.learners.saved import NetworkSpec, TrainedLearner, load_learner, save_learner

N_SHOT, N_QUERY, SIZE = 2, 3, 20


@pytest.fixture(scope="module")
def glyphs():
    return load_dataset("glyphs", image_size=SIZE, seed=0)


def save_images(images, folder):
    folder.mkdir(parents=True)
    for index, pixels in enumerate(images):
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(folder / f"{index}.png")


def model_file(glyphs, path, learner="protonet", n_channels=1, n_outputs=5):
    method = make_learner(learner)
    network = NetworkSpec("conv4", None, n_outputs, n_channels, SIZE)
    model = method.make_model(network.build(method.norm, seed=1)).eval()
    mean, std = glyphs.mean * n_channels, glyphs.std * n_channels
    save_learner(TrainedLearner(method, model, network, mean, std), path)
    return path


@pytest.fixture
def folders(glyphs, tmp_path):
    """Three novel characters: some labelled, some to label, one of those unreadable."""
    for label, images in list(zip(glyphs.novel.classes, glyphs.novel.images, strict=True))[:3]:
        save_images(images[:N_SHOT], tmp_path / "support" / label)
        save_images(images[-N_QUERY:], tmp_path / "query" / "deep" / label)
    (tmp_path / "query" / "torn.png").write_bytes(b"\x89PNG and no more")
    return tmp_path / "support", tmp_path / "query"


def test_labels_are_those_of_the_learner_and_the_unreadable_is_named(glyphs, folders, tmp_path):
    path = model_file(glyphs, tmp_path / "model.pt")
    table = predict(path, *folders)
    classes = sorted(glyphs.novel.classes[:3])
    assert table["file"].is_monotonic_increasing
    assert len(table) == 3 * N_QUERY + 1
    torn = table[table["file"] == "torn.png"].iloc[0]
    assert pd.isna(torn["label"])
    assert torn["reason"] == "it is no image, or damaged at its beginning"
    rest = table[table["file"] != "torn.png"]
    shares = rest[[f"p_{label}" for label in classes]]
    assert shares.sum(axis=1).to_numpy() == pytest.approx(1)
    assert (shares.idxmax(axis=1) == "p_" + rest["label"]).all()
    assert rest["probability"].to_numpy() == pytest.approx(shares.max(axis=1).to_numpy())
    trained = load_learner(path)
    places = [glyphs.novel.classes.index(label) for label in classes]
    support = torch.cat([glyphs.to_tensor(glyphs.novel.images[i][:N_SHOT]) for i in places])
    query = torch.cat([glyphs.to_tensor(glyphs.novel.images[i][-N_QUERY:]) for i in places])
    labels = torch.arange(3).repeat_interleave(N_SHOT)
    with torch.no_grad():
        expected = bind(trained.learner, trained.model)(support, labels, 3)(query).softmax(1)
    assert torch.tensor(shares.to_numpy()).allclose(expected.double(), atol=1e-4)


def test_a_learner_of_colours_takes_grey_images_and_the_other_way_round(glyphs, folders, tmp_path):
    grey = predict(model_file(glyphs, tmp_path / "grey.pt"), *folders)
    for path in [*folders[0].rglob("*.png"), *folders[1].rglob("?.png")]:
        Image.open(path).convert("RGB").save(path)
    again = predict(tmp_path / "grey.pt", *folders)
    pd.testing.assert_frame_equal(again, grey)
    assert len(predict(model_file(glyphs, tmp_path / "colour.pt", n_channels=3), *folders)) == len(grey)


def test_the_command_writes_a_csv(glyphs, folders, tmp_path):
    path = model_file(glyphs, tmp_path / "model.pt")
    words = ["predict", path, "--support", folders[0], "--query", folders[1], "--out", tmp_path / "found.csv"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert "9 images labelled" in done.stdout
    assert "1 could not be read" in done.stdout
    assert len(pd.read_csv(tmp_path / "found.csv")) == 3 * N_QUERY + 1


def test_what_cannot_be_labelled_is_said(glyphs, folders, tmp_path):
    support, query = folders
    path = model_file(glyphs, tmp_path / "model.pt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images to label"):
        predict(path, support, tmp_path / "empty")
    with pytest.raises(DataError, match="no directories with images"):
        predict(path, tmp_path / "empty", query)
    with pytest.raises(RunError, match="not a trained learner"):
        predict(query / "torn.png", support, query)
    with pytest.raises(UsageError, match="trained for 5-way episodes and got 3"):
        predict(model_file(glyphs, tmp_path / "maml.pt", "maml"), support, query)
    only = next(support.iterdir())
    for other in [each for each in support.iterdir() if each != only]:
        for image in other.iterdir():
            image.unlink()
    with pytest.raises(DataError, match="one class only"):
        predict(path, support, query)
    for image in only.iterdir():
        image.write_bytes(b"nothing")
    (support / "second").mkdir()
    (support / "second" / "1.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="no image of class"):
        predict(path, support, query)
