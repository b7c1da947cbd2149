import random
from collections import defaultdict
from collections.abc import Hashable, Iterable
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metantk_nas.spaces import canonical
from metantk_nas.spaces.canonical import Output, canonical_form, canonical_key, smallest_order
from metantk_nas.spaces.genotype import Cell, Edge, Genotype, Node
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Space
from tests.reference.nb201_isomorphism import isomorphism_string
from tests.reference.toy_cell import ToyCells
from tests.spaces.strategies import SKELETON, genotypes, spaces

KINDS: dict[str, tuple[int, Output, bool]] = {
    "nas_bench_201": (1, "last", False),
    "darts_like normal": (2, "concat", False),
    "darts_like reduce": (2, "concat", True),
}


@cache
def all_cells(kind: str) -> list[Cell]:
    """Every cell of NAS-Bench-201, or of a small space in the manner of DARTS."""
    ops = ("skip_connect", "conv_3x3", "max_pool_3x3")
    small = Space("small", "", "", ("cell",), 2, 3, 2, "concat", ops, SKELETON)
    space = load_space("nas_bench_201") if kind == "nas_bench_201" else small
    return [genotype.cell("cell") for genotype in space.genotypes()]


@cache
def all_forms(kind: str) -> list[str]:
    n_inputs, output, reduces = KINDS[kind]
    return [canonical_form(cell, n_inputs, output, reduces=reduces) for cell in all_cells(kind)]


def is_finer(fine: Iterable[Hashable], coarse: Iterable[Hashable]) -> bool:
    """Whether what shares a fine label always shares a coarse one."""
    pairs = set(zip(fine, coarse, strict=True))
    return len(pairs) == len({label for label, _ in pairs})


def test_the_benchmarks_own_isomorphism_test_gives_the_published_partition(
    nas_bench_201_rows: list[dict[str, str]],
) -> None:
    strings = [isomorphism_string(row["arch_str"]) for row in nas_bench_201_rows]
    published = [row["isomorphism_class"] for row in nas_bench_201_rows]
    assert len(set(strings)) == len(set(published)) == 6_466
    assert is_finer(strings, published)


def test_nas_bench_201_has_5260_keys() -> None:
    """Fewer than the 6,466 of the benchmark, which keeps zeros in sums; more than the 4,930 without identity."""
    space = load_space("nas_bench_201")
    assert len({space.key(genotype) for genotype in space.genotypes()}) == len(set(all_forms("nas_bench_201"))) == 5_260


@pytest.mark.parametrize("kind", KINDS)
def test_no_form_joins_cells_of_different_function_when_names_share_weights(kind: str) -> None:
    toy = ToyCells(*KINDS[kind])
    values = [toy.run_with_shared_names(cell) for cell in all_cells(kind)]
    assert is_finer(all_forms(kind), values)


@pytest.mark.parametrize("kind", KINDS)
def test_cells_of_one_form_are_one_function_family_when_every_edge_has_its_weights(kind: str) -> None:
    toy = ToyCells(*KINDS[kind])
    members: dict[str, list[Cell]] = defaultdict(list)
    for cell, form in zip(all_cells(kind), all_forms(kind), strict=True):
        members[form].append(cell)
    pairs = [pair for cells in members.values() for pair in pairwise(cells)]
    for first, second in random.Random(0).sample(pairs, 150):
        assert toy.same_family(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_forms_are_told_apart_where_only_the_identity_of_weights_differs(kind: str) -> None:
    """Cells that agree when names share weights, but no renaming of the weights of edges makes them agree."""
    toy = ToyCells(*KINDS[kind])
    members: dict[Hashable, dict[str, Cell]] = defaultdict(dict)
    for cell, form in zip(all_cells(kind), all_forms(kind), strict=True):
        members[toy.run_with_shared_names(cell)].setdefault(form, cell)
    pairs = [pair for cells in members.values() for pair in pairwise(cells.values())]
    assert len(pairs) >= 10
    for first, second in random.Random(0).sample(pairs, min(len(pairs), 100)):
        assert not toy.same_family(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_numberings_make_finer_forms_and_never_join(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = all_forms(kind)
    monkeypatch.setattr(canonical, "MAX_NUMBERINGS", 0)
    n_inputs, output, reduces = KINDS[kind]
    fallback = [canonical_form(cell, n_inputs, output, reduces=reduces) for cell in all_cells(kind)]
    assert is_finer(fallback, exact)
    assert (len(set(fallback)) > len(set(exact))) == (kind != "nas_bench_201")


X, Y = 0, 1
CONV, POOL, SKIP, NONE = "nor_conv_3x3", "avg_pool_3x3", "skip_connect", "none"


@pytest.mark.parametrize(
    ("nodes", "form"),
    [
        ([[(NONE, 0)], [(NONE, 0), (CONV, 1)], [(NONE, 0), (SKIP, 1), (CONV, 2)]], "0"),
        ([[(CONV, 0)], [(NONE, 0), (NONE, 1)], [(SKIP, 0), (NONE, 1), (CONV, 2)]], "x0"),
        ([[(SKIP, 0)], [(SKIP, 0), (SKIP, 1)], [(NONE, 0), (NONE, 1), (SKIP, 2)]], "x0 + x0"),
        ([[(CONV, 0)], [(CONV, 0), (NONE, 1)], [(NONE, 0), (POOL, 1), (SKIP, 2)]],
         "avg_pool_3x3(nor_conv_3x3(x0)) + nor_conv_3x3(x0)"),
        ([[(CONV, 0)], [(NONE, 0), (NONE, 1)], [(NONE, 0), (POOL, 1), (NONE, 2)]], "avg_pool_3x3(nor_conv_3x3(x0))"),
        ([[(CONV, 0)], [(NONE, 0), (SKIP, 1)], [(NONE, 0), (POOL, 1), (SKIP, 2)]],
         "avg_pool_3x3(nor_conv_3x3#1(x0)) + nor_conv_3x3#1(x0)"),
    ],
)  # fmt: skip
def test_the_form_can_be_read(nodes: list[list[Edge]], form: str) -> None:
    assert canonical_form(tuple(map(tuple, nodes)), 1, "last") == form


def test_a_skip_from_an_input_has_weights_in_a_reduce_cell_only() -> None:
    cell: Cell = (((SKIP, X), (SKIP, Y)), ((POOL, X), (SKIP, 2)))
    assert canonical_form(cell, 2, "concat") == "avg_pool_3x3(x0) + x0 + x1 | x0 + x1"
    skips = "skip_connect#1(x0) + skip_connect#1(x1)"
    assert canonical_form(cell, 2, "concat", reduces=True) == f"avg_pool_3x3(x0) + {skips} | {skips}"


def test_a_dead_architecture_has_one_form_per_cell() -> None:
    dead: Cell = (((NONE, X), (NONE, Y)), ((NONE, X), (CONV, 2)))
    assert canonical_form(dead, 2, "concat") == canonical_form(dead, 2, "last") == "0"
    half_dead: Cell = (((NONE, X), (NONE, Y)), ((SKIP, X), (CONV, 2)))
    assert canonical_form(half_dead, 2, "concat") == "0 | x0"


def test_the_cells_of_a_genotype_are_not_mixed_up() -> None:
    assert canonical_key(["x0", "x1"]) != canonical_key(["x1", "x0"])
    space = load_space("darts")
    genotype = space.sample(random.Random(0))
    (_, normal), (_, reduce) = genotype.cells
    assert space.key(Genotype((("normal", reduce), ("reduce", normal)))) != space.key(genotype)


def permuted(cell: Cell, n_inputs: int, output: Output, rng: random.Random) -> Cell:
    """The same nodes in another order in which each reads earlier ones only."""
    new_index = {index: index for index in range(n_inputs)}
    nodes: list[Node] = []
    while len(nodes) < len(cell):
        ready = [
            position
            for position, node in enumerate(cell)
            if n_inputs + position not in new_index
            and all(index in new_index for _, index in node)
            and (output == "concat" or position < len(cell) - 1 or len(nodes) == len(cell) - 1)
        ]
        position = rng.choice(ready)
        edges = [(op, new_index[index]) for op, index in cell[position]]
        nodes.append(tuple(sorted(edges, key=lambda edge: edge[1])))
        new_index[n_inputs + position] = n_inputs + len(nodes) - 1
    return tuple(nodes)


@settings(deadline=None, max_examples=100)
@given(st.data(), st.integers())
def test_the_order_of_nodes_changes_neither_the_key_nor_the_smallest_order(data: st.DataObject, seed: int) -> None:
    space = data.draw(spaces())
    genotype = data.draw(genotypes(space))
    rng = random.Random(seed)
    other = Genotype(tuple((name, permuted(cell, space.n_inputs, space.output, rng)) for name, cell in genotype.cells))
    space.check(other)
    assert space.key(other) == space.key(genotype)
    for (_, cell), (_, twin) in zip(genotype.cells, other.cells, strict=True):
        smallest = smallest_order(cell, space.n_inputs, space.output)
        assert smallest == smallest_order(twin, space.n_inputs, space.output) <= min(cell, twin)
        assert canonical_form(smallest, space.n_inputs, space.output) == canonical_form(
            cell, space.n_inputs, space.output
        )


def test_in_a_small_space_the_representative_depends_on_the_key_alone() -> None:
    space = load_space("nas_bench_201")
    found = {(space.key(genotype), space.representative(genotype)) for genotype in space.genotypes()}
    assert len(found) == 5_260
    dead = [genotype for genotype in space.genotypes() if space.canonical_forms(genotype) == ("0",)]
    assert len(dead) > 1
    assert {space.representative(genotype) for genotype in dead} == {min(dead)}
