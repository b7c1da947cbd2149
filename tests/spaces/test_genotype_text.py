import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metantk_nas.errors import GenotypeError
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.text import MAX_LENGTH

NB201 = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"
CELL = (
    (("nor_conv_3x3", 0),),
    (("none", 0), ("skip_connect", 1)),
    (("avg_pool_3x3", 0), ("nor_conv_1x1", 1), ("none", 2)),
)
FLAT = "[('conv_3x3', 0), ('conv_3x3', 1), ('skip_connect', 0), ('conv_3x3', 2), ('conv_3x3', 1), ('conv_3x3', 3)]"
NESTED = (
    "[[('conv_3x3', 0), ('conv_3x3', 1)], [('skip_connect', 0), ('conv_3x3', 2)], (['conv_3x3', 1], ['conv_3x3', 3])]"
)
DARTS = f"Genotype(normal={FLAT}, normal_concat=[2, 3, 4], reduce={FLAT}, reduce_concat=[2, 3, 4])"


def test_nas_bench_201_text_is_read_and_written() -> None:
    space = load_space("nas_bench_201")
    assert space.parse(NB201).cell("cell") == CELL
    assert space.format(space.parse(NB201)) == NB201


def test_the_benchmarks_own_reader_reads_what_we_write() -> None:
    api = pytest.importorskip("nas_201_api")
    space = load_space("nas_bench_201")
    rng = random.Random(0)
    for _ in range(100):
        genotype = space.sample(rng)
        assert tuple(api.NASBench201API.str2lists(space.format(genotype))) == genotype.cell("cell")


def test_white_space_and_the_order_of_edges_do_not_matter() -> None:
    loose = " | nor_conv_3x3 ~0 | +\n|skip_connect~1|none~0|+|none~2|avg_pool_3x3~0|nor_conv_1x1~1|\n"
    assert load_space("nas_bench_201").parse(loose).cell("cell") == CELL


@pytest.mark.parametrize(
    "text",
    [
        DARTS,
        DARTS.replace(" ", ""),
        f"\n Genotype(\n  reduce={NESTED},\n  normal={FLAT})\n",
        f"Genotype(normal={NESTED}, normal_concat=range(2, 5), reduce={NESTED}, reduce_concat=range(2, 5))",
        f"Genotype(normal=({FLAT[1:-1]}), normal_concat=(2, 3, 4), reduce={FLAT})",
        DARTS.replace("('skip_connect', 0), ('conv_3x3', 2)", "('conv_3x3', 2), ('skip_connect', 0)"),
    ],
)
def test_every_published_spelling_of_darts_reads_alike(text: str) -> None:
    space = load_space("darts_fewshot")
    assert space.format(space.parse(text)) == DARTS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at character 1: got '', expected a node such as"),
        ("conv4", "at character 1: got 'conv4', expected a node"),
        (NB201.replace("none~0", "none"), r"at character 19: got 'none', expected an edge such as 'skip_connect~0'"),
        (NB201.replace("none~0", "none~-1"), "at character 19: got 'none~-1'"),
        (NB201 + "+", f"at character {len(NB201) + 2}: got ''"),
        (NB201.replace("|+|", "||+|", 1), "at character 17: got ''"),
        (NB201.replace("none~0", "non~0"), "node 2 of cell 'cell': operation 'non' not found.*Did you mean 'none'"),
        (NB201.replace("none~0", "none~1"), r"node 2 of cell 'cell' reads states \[1, 1\]; expected each state once"),
        (NB201.replace("none~2", "none~3"), r"node 3 .* reads states \[0, 1, 3\]; it can read 0 … 2"),
        (NB201.replace("none~2", "none~99999"), "expected an edge"),
        ("|none~0|+|none~0|none~1|", "cell 'cell' has 2 nodes; cells of space 'nas_bench_201' have 3"),
        (NB201.replace("|none~2|", "|"), "node 3 of cell 'cell' has 2 edges"),
        (NB201 * 1_000, f"at most {MAX_LENGTH:,}"),
    ],
)
def test_malformed_nas_bench_201_text_names_the_place(text: str, message: str) -> None:
    with pytest.raises(GenotypeError, match=message):
        load_space("nas_bench_201").parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"expected Genotype\(normal="),
        ("Genotype", r"got 'Genotype'; expected Genotype\("),
        (NB201, "at character 1: '|' has no place in a DARTS genotype"),
        (DARTS[:-1], r"line 1, character 9: '\(' was never closed"),
        (f"Genotype(normal={FLAT},\n reduce=[('conv_3x3' 0)])", "line 2, character 1[0-9]: "),
        (f"Genotype(normal={FLAT},\n reduce=[__import__('os')])", r"line 2, character 10: expected a list, an edge"),
        (f"Genotype({FLAT}, {FLAT})", r"expected Genotype\("),
        (f"Genotype(normal={FLAT})", "the cell 'reduce' is missing"),
        (DARTS.replace("reduce_concat", "normal_concat"), "field of Genotype needs a name of its own"),
        (DARTS.replace("reduce_concat", "reduc_concat"), "'reduc_concat' not found.*Did you mean 'reduce_concat'"),
        (DARTS.replace("[2, 3, 4]", "[2, 3]"), r"normal_concat is \[2, 3\]; cells of this space output \[2, 3, 4\]"),
        (DARTS.replace("[2, 3, 4]", "range(2, 999999999999)"), "normal_concat is .* cells of this space output"),
        (DARTS.replace("('conv_3x3', 0), ", "", 1), r"cell 'normal' has 5 edges; expected 2 \+ 2 \+ 2"),
        (f"Genotype(normal={FLAT}, reduce=7)", r"cell 'reduce': got 7, expected an edge"),
        (f"Genotype(normal={FLAT}, reduce=[])", "cell 'reduce' has 0 edges"),
        (f"Genotype(normal={FLAT}, reduce=[[], []])", r"cell 'reduce': got \[\], expected an edge"),
        (NESTED.join(["Genotype(normal=", f", reduce={NESTED[:-1]}, 3])"]), "node 4 of cell 'reduce': got 3"),
        (DARTS.replace("('conv_3x3', 0)", "('conv_3x3', True)"), "line 1, character 31: expected a list"),
        (DARTS.replace("conv_3x3", "conv3x3", 1), "node 1 of cell 'normal': operation 'conv3x3' not found.*'conv_3x3'"),
        (DARTS.replace("('conv_3x3', 3)", "('conv_3x3', 4)"), r"node 3 .* reads states \[1, 4\]; it can read 0 … 3"),
        (DARTS.replace("('conv_3x3', 1)", "('conv_3x3', 0)", 1), "expected each state once"),
        ("Genotype(normal=" + "[" * 500 + "]" * 500 + ")", "too many nested"),
        (DARTS + " " * MAX_LENGTH, f"at most {MAX_LENGTH:,}"),
    ],
)
def test_malformed_darts_text_names_the_place(text: str, message: str) -> None:
    with pytest.raises(GenotypeError, match=message):
        load_space("darts_fewshot").parse(text)


@pytest.mark.parametrize("name", ["nas_bench_201", "darts_fewshot"])
@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damaged_text_is_read_or_refused_but_never_crashes(name: str, data: st.DataObject) -> None:
    whole = NB201 if name == "nas_bench_201" else DARTS
    cut = data.draw(st.integers(0, len(whole)))
    rest = data.draw(st.integers(cut, min(len(whole), cut + 5)))
    noise = data.draw(st.text(st.sampled_from("()[]=,'\"|~+ \n0123x_\x00é"), max_size=5) | st.text(max_size=3))
    space = load_space(name)
    with contextlib.suppress(GenotypeError):
        space.check(space.parse(whole[:cut] + noise + whole[rest:]))
