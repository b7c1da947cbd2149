import json
import os
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from metantk_nas.report.cells import FAMILIES, draw_cell, op_family, op_label
from metantk_nas.spaces.genotype import Cell
from metantk_nas.spaces.load import load_space

SVG = "{http://www.w3.org/2000/svg}"
DATA = Path(os.environ.get("METANTK_DATA", Path(__file__).parents[3] / "shared" / "data"))
Box = tuple[float, float, float, float]


def labels_of(root: ElementTree.Element) -> list[tuple[ElementTree.Element, Box]]:
    return [(edge, _box(rect)) for edge in root.iter(f"{SVG}g") for rect in edge.findall(f"{SVG}rect[@class='label']")]


def nodes_of(root: ElementTree.Element) -> list[Box]:
    return [_box(rect) for node in root.findall(f"{SVG}g[@class='node']") for rect in node.iter(f"{SVG}rect")]


def _box(rect: ElementTree.Element) -> Box:
    x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def overlap(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def points_of(edge: ElementTree.Element) -> Iterator[tuple[float, float]]:
    """Points along the line of an edge, a pixel or two apart."""
    x = y = 0.0
    for kind, text in re.findall(r"([MCH])([^MCH]*)", edge.findall(f"{SVG}path")[0].attrib["d"]):
        numbers = [float(word) for word in text.split()]
        if kind == "M":
            x, y = numbers
        controls = {"M": [x, y] * 3, "H": [x, y, numbers[0], y, numbers[0], y], "C": numbers}[kind]
        (a, b, c, d, e, f), steps = controls, 60
        for t in (step / steps for step in range(steps + 1)):
            weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
            yield (
                sum(w * p for w, p in zip(weights, (x, a, c, e), strict=True)),
                sum(w * p for w, p in zip(weights, (y, b, d, f), strict=True)),
            )
        x, y = e, f


def check_drawing(cell: Cell, n_inputs: int, output: str) -> ElementTree.Element:
    """The law of every drawing: each operation has its label, and nothing lies on a label or outside the picture."""
    root = ElementTree.fromstring(draw_cell(cell, n_inputs=n_inputs, output=output))
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    labels, nodes = labels_of(root), nodes_of(root)
    assert len(labels) == sum(len(node) for node in cell)
    boxes = [box for _, box in labels] + nodes
    for index, box in enumerate(boxes):
        assert 0 <= box[0] <= box[2] <= width
        assert 0 <= box[1] <= box[3] <= height
        assert not any(overlap(box, other) for other in boxes[index + 1 :])
    for edge in root.iter(f"{SVG}g"):
        if "edge" in edge.attrib["class"]:
            points = list(points_of(edge))
            foreign = [box for other, box in labels if other is not edge]
            assert not any(overlap((x, y, x, y), box) for x, y in points for box in foreign)
    return root


@pytest.mark.parametrize("name", ["nas_bench_201", "darts", "darts_fewshot"])
def test_labels_never_overlap_in_any_shipped_space(name: str) -> None:
    space, rng = load_space(name), random.Random(0)
    for _ in range(25):
        for _, cell in space.sample(rng).cells:
            check_drawing(cell, space.n_inputs, space.output)


def test_published_fewshot_cells_are_drawn_legibly() -> None:
    file = DATA / "searched_fewshot_genotypes.json"
    if not file.exists():
        pytest.skip("the published few-shot genotypes are not here; METANTK_DATA names their folder")
    for entry in json.loads(file.read_text()):
        for cell_type in ("normal", "reduce"):
            cell = tuple(tuple((op, source) for op, source in node) for node in entry[cell_type])
            root = check_drawing(cell, 2, "concat")
            assert float(root.attrib["width"]) <= 440


def test_the_largest_cell_a_space_may_have_is_drawn() -> None:
    space = replace(load_space("darts"), n_nodes=8, edges_per_node=None)
    root = check_drawing(space.sample(random.Random(1)).cells[0][1], space.n_inputs, space.output)
    assert len(labels_of(root)) == 44


def test_a_cell_without_any_edge_is_drawn() -> None:
    assert len(nodes_of(check_drawing(((), ()), 2, "concat"))) == 5


def test_a_concatenated_cell_joins_every_node_to_the_output_without_a_label() -> None:
    cell = ((("skip_connect", 0),), (("sep_conv_3x3", 2),))
    root = check_drawing(cell, 2, "concat")
    assert len(root.findall(f"{SVG}g[@class='edge op-concat']")) == 2
    assert [node.findtext(f"{SVG}text") for node in root.findall(f"{SVG}g[@class='node']")][-3:] == ["2", "3", "out"]


def test_the_last_node_is_the_output_where_the_space_says_so() -> None:
    root = check_drawing(((("none", 0),), (("nor_conv_1x1", 1),)), 1, "last")
    assert [node.findtext(f"{SVG}text") for node in root.findall(f"{SVG}g[@class='node']")] == ["in", "1", "out"]


def test_each_edge_tells_its_full_operation_and_its_ends() -> None:
    root = check_drawing(((("max_pool_3x3BN", 1),),), 2, "concat")
    (edge,) = root.findall(f"{SVG}g[@class='edge op-pool']")
    assert edge.findtext(f"{SVG}title") == "max_pool_3x3BN: c_k-1 to 2"
    assert edge.findtext(f"{SVG}text") == "max 3×3"


def test_hostile_texts_are_escaped() -> None:
    op = "</text><script>alert(1)</script>"
    text = draw_cell((((op, 0),),), n_inputs=1, title=op)
    assert "<script" not in text
    assert ElementTree.fromstring(text).findtext(f"{SVG}title") == op


def test_operations_that_would_share_a_short_label_keep_their_names() -> None:
    root = check_drawing(((("conv_3x3", 0), ("nor_conv_3x3", 1)),), 2, "concat")
    texts = {edge.findtext(f"{SVG}text") for edge, _ in labels_of(root)}
    assert texts == {"conv_3x3", "nor_conv_3x3"}


@pytest.mark.parametrize(
    ("op", "label", "family"),
    [
        ("none", "none", "none"),
        ("skip_connect", "skip", "skip"),
        ("sep_conv_5x5", "sep 5×5", "sep"),
        ("dil_conv_3x3", "dil 3×3", "dil"),
        ("nor_conv_1x1", "conv 1×1", "conv"),
        ("conv_1x5_5x1", "1×5·5×1", "conv"),
        ("avg_pool_3x3", "avg 3×3", "pool"),
        ("avg_pool_3x3BN", "avg 3×3", "pool"),
        ("something_of_ones_own", "something of ones…", "other"),
    ],
)
def test_labels_are_short_and_colours_follow_families(op: str, label: str, family: str) -> None:
    assert op_label(op) == label
    assert op_family(op) == family


def test_white_text_is_legible_on_every_family_colour() -> None:
    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for family, (_, colour) in FAMILIES.items():
        if family != "none":
            assert 1.05 / (luminance(colour) + 0.05) >= 4.5, family
