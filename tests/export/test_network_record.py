"""JSON, texts and drawings: complete, readable back, and unmoved by whatever a stranger writes into them."""

import json
import random
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metantk_nas.errors import RunError, UsageError
from metantk_nas.export.files import export, text_of
from metantk_nas.export.record import count, read_genotype, read_record, record_text, to_record
from metantk_nas.export.subject import Subject
from metantk_nas.networks.cost import CostModel
from metantk_nas.spaces.text import read_cell, read_cells
from tests.export.networks import IMAGE_SIZE, conv4, saved_learner, subject_in
from tests.networks.chunks import SPACES, small
from tests.spaces.strategies import genotypes, spaces

SLOW_MACHINE = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]


def written(subject: Subject, folder: Path) -> Path:
    (path,) = export(subject, "json", folder / "network.json").paths
    return path


@settings(max_examples=30, deadline=None, suppress_health_check=SLOW_MACHINE)
@given(data=st.data())
def test_any_genotype_of_any_space_reads_back(data, tmp_path):
    space = data.draw(spaces())
    subject = subject_in(space, data.draw(genotypes(space)))
    path = written(subject, tmp_path)
    assert read_genotype(path) == (space, subject.genotype)
    assert read_record(path) == (subject.spec, "batch")


@pytest.mark.parametrize("name", SPACES)
def test_sizes_are_those_of_the_ranking(name):
    space = small(name)
    model = CostModel(space, n_outputs=4, in_channels=3, image_size=IMAGE_SIZE)
    for seed in range(2):
        subject = subject_in(space, seed)
        cost = model(subject.genotype)
        assert count(subject) == (cost.params, cost.macs)


def test_a_record_tells_space_cells_texts_and_learner(tmp_path):
    space = small("darts_fewshot")
    genotype = space.sample(random.Random(3))
    subject = saved_learner(tmp_path, "kernel", arch=space.format(genotype), space=space)
    record = json.loads(record_text(to_record(subject)))
    assert record["arch"] == record["texts"]["darts"] == space.format(genotype)
    assert record["key"] == space.key(genotype)
    assert record["cells"]["normal"][0][0] == list(genotype.cell("normal")[0][0])
    assert record["space"]["skeleton"]["reduce_at"] == ["1/3", "2/3"]
    assert record["learner"]["name"] == "kernel"
    assert record["learner"]["settings"]["inner_time"] == "inf"
    assert record["learner"]["mean"] == [0.5, 0.4, 0.3]


def test_conv4_has_a_record_but_no_genotype(tmp_path):
    path = written(conv4(), tmp_path)
    assert read_record(path)[0] == conv4().spec
    record = json.loads(path.read_text())
    assert record["params"] == sum(parameter.numel() for parameter in conv4().network.parameters())
    positions = [IMAGE_SIZE**2, (IMAGE_SIZE // 2) ** 2, (IMAGE_SIZE // 4) ** 2, (IMAGE_SIZE // 8) ** 2]
    weights = [3 * 64 * 9, 64 * 64 * 9, 64 * 64 * 9, 64 * 64 * 9]
    assert record["macs"] == sum(a * b for a, b in zip(positions, weights, strict=True)) + 64 * 4
    with pytest.raises(RunError, match="describes conv4, which is not made of cells"):
        read_genotype(path)


def change(path: Path, **values: object) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return path


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "ranking"}, "expected an object whose format is 'metantk-nas network'"),
        ({"version": 2}, "its version is 2; this package reads 1"),
        ({"arch": None}, "lacks arch or network"),
        ({"network": {}}, "its n_outputs is None"),
        ({"network": {"n_outputs": 5, "in_channels": 10**9, "image_size": 8, "norm": "batch"}}, "from 1 to 100,000"),
        ({"network": {"n_outputs": 5, "in_channels": 3, "image_size": 8, "norm": "layer"}}, "its norm is 'layer'"),
        ({"space": None}, "lacks space"),
        ({"space": {"name": "x"}}, "space lacks cell, skeleton"),
        ({"arch": "|nor_conv_9x9~0|"}, "has 1 nodes; cells of space"),
        ({"cells": {}}, "arch and cells differ"),
    ],
)
def test_a_foreign_file_is_refused_with_what_is_wrong(values, message, tmp_path):
    path = change(written(subject_in(small("nas_bench_201")), tmp_path), **values)
    with pytest.raises(RunError, match=message) as error:
        read_record(path)
    assert "network.json is not a network that" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000, b" " * 1_000_001, b'"text"'])
def test_a_file_that_is_no_json_is_refused(content, tmp_path):
    path = tmp_path / "network.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"network\.json is not a network"):
        read_record(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RunError, match="No such file"):
        read_record(tmp_path / "network.json")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads(record_text(to_record(subject_in(small("darts")))))


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW_MACHINE)
@given(data=st.data())
def test_a_record_with_anything_changed_anywhere_is_read_or_refused(data, record, tmp_path):
    changed = json.loads(json.dumps(record))
    place = changed
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(VALUES)
    path = tmp_path / "network.json"
    path.write_text(json.dumps(changed))
    with suppress(RunError):
        spec, _ = read_record(path)
        assert spec.space is None or spec.space.parse(spec.arch)


def test_texts_are_those_of_the_papers():
    one, two = subject_in(small("nas_bench_201"), 1), subject_in(small("darts"), 1)
    darts, cell = (line.split(": ", 1)[1] for line in text_of(one).splitlines())
    assert cell == one.arch
    assert read_cells(darts, ["cell"], [1, 2, 3], [3])["cell"] == one.genotype.cell("cell")
    lines = dict(line.split(": ", 1) for line in text_of(two).splitlines())
    assert lines["darts"] == two.arch
    assert read_cell(lines["nas_bench_201_reduce"]) == two.genotype.cell("reduce")


def test_every_cell_is_drawn(tmp_path):
    paths = export(subject_in(small("darts"), 1), "svg", tmp_path / "cells.svg").paths
    assert [path.name for path in paths] == ["cells_normal.svg", "cells_reduce.svg"]
    for path in paths:
        assert len(ElementTree.parse(path).getroot().findall(".//*[@class='label']")) == 8
    (path,) = export(subject_in(small("nas_bench_201"), 1), "svg", tmp_path / "cell.svg").paths
    assert path.name == "cell.svg"


@pytest.mark.parametrize("form", ["text", "svg"])
def test_a_network_without_cells_has_no_text_and_no_drawing(form, tmp_path):
    with pytest.raises(UsageError, match="conv4 is not made of cells"):
        export(conv4(), form, tmp_path / "out")


def test_an_unknown_format_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"format 'onx' not found.*Did you mean 'onnx'"):
        export(conv4(), "onx", tmp_path / "out")
