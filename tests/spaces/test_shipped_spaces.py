import json
import random
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from metantk_nas.errors import GenotypeError, SpaceError
from metantk_nas.spaces.genotype import Cell, Genotype
from metantk_nas.spaces.load import available_spaces, load_space
from metantk_nas.spaces.space import Skeleton, Space
from tests.contracts.space import SpaceContract
from tests.spaces.strategies import genotypes, spaces

THIRDS = (Fraction(1, 3), Fraction(2, 3))


class TestNasBench201(SpaceContract):
    @pytest.fixture
    def space(self) -> Space:
        return load_space("nas_bench_201")


class TestDarts(SpaceContract):
    @pytest.fixture
    def space(self) -> Space:
        return load_space("darts")


class TestDartsFewshot(SpaceContract):
    @pytest.fixture
    def space(self) -> Space:
        return load_space("darts_fewshot")


class TestUsersOwnSpace(SpaceContract):
    @pytest.fixture
    def space(self, my_space: Space) -> Space:
        return my_space


def test_shipped_spaces_are_listed_under_their_own_names() -> None:
    assert available_spaces() == ("darts", "darts_fewshot", "nas_bench_201")
    for name in available_spaces():
        space = load_space(name)
        assert space.name == name
        assert space.description
        assert "arXiv" in space.source


@pytest.mark.parametrize(
    ("name", "cell_size", "n_types"),
    [("nas_bench_201", 15_625, 1), ("darts", 1_037_664_180, 2), ("darts_fewshot", 2_117_682, 2)],
)
def test_sizes_are_the_known_ones(name: str, cell_size: int, n_types: int) -> None:
    space = load_space(name)
    assert space.cell_size == cell_size
    assert space.size == cell_size**n_types


def test_skeletons_are_those_of_the_papers() -> None:
    skeletons = {name: load_space(name).skeleton for name in available_spaces()}
    assert skeletons["nas_bench_201"] == Skeleton(16, 15, THIRDS, stem_multiplier=1, final_norm=True)
    assert skeletons["nas_bench_201"].reduction_positions == (5, 10)
    assert skeletons["darts"] == Skeleton(16, 8, THIRDS, stem_multiplier=3)
    assert skeletons["darts"].reduction_positions == (2, 5)
    assert skeletons["darts_fewshot"] == Skeleton(48, 5, THIRDS, stem_multiplier=1)
    assert skeletons["darts_fewshot"].reduction_positions == (1, 3)


@settings(deadline=None, max_examples=60)
@given(spaces(max_nodes=3, max_ops=3))
def test_size_counts_the_listed_genotypes(space: Space) -> None:
    if space.size <= 3_000:
        assert sum(1 for _ in space.genotypes()) == len(set(space.genotypes())) == space.size


@settings(deadline=None)
@given(st.data())
def test_any_space_reads_back_what_it_writes(data: st.DataObject) -> None:
    space = data.draw(spaces())
    genotype = data.draw(genotypes(space))
    assert space.parse(space.format(genotype)) == genotype


def test_sampling_is_uniform(my_space: Space) -> None:
    rng = random.Random(0)
    counts = Counter(my_space.sample(rng) for _ in range(20 * my_space.size))
    assert len(counts) == my_space.size == (2 * 3 * 3 * 3) ** 2
    assert chisquare(list(counts.values())).pvalue > 0.001


def test_genotypes_are_ordered_and_tell_their_cells(my_space: Space) -> None:
    listed = list(my_space.genotypes())
    assert all(first < second for first, second in pairwise(sorted(listed)))
    assert listed[0].cell("reduce") == ((("skip_connect", 0),), (("skip_connect", 0),))
    with pytest.raises(KeyError):
        listed[0].cell("cell")


def test_the_published_few_shot_genotypes_are_in_the_space(data_folder: Path) -> None:
    space = load_space("darts_fewshot")
    found = json.loads((data_folder / "searched_fewshot_genotypes.json").read_text())
    assert len(found) == 6
    for entry in found:
        nested = f"Genotype(normal={entry['normal']}, normal_concat={entry['concat']}, reduce={entry['reduce']})"
        genotype = space.parse(nested)
        assert genotype.cell("normal") == tuple(tuple(map(tuple, node)) for node in entry["normal"])
        assert genotype.cell("reduce") == tuple(tuple(map(tuple, node)) for node in entry["reduce"])


SKIP, CONV = ("skip_connect", 0), ("nor_conv_3x3", 1)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ((("cell", ((SKIP,), (CONV,))),), r"cell types are \['cell'\]; space 'mine' has \['normal', 'reduce'\]"),
        ((("normal", ((SKIP,),)), ("reduce", ())), "cell 'normal' has 1 nodes; cells of space 'mine' have 2"),
        ((("normal", ((SKIP,), (("conv", 0),))), ("reduce", ())), "node 2 of cell 'normal': operation 'conv' not"),
        ((("normal", ((("skip_connect", 2),), (SKIP,))), ("reduce", ())), r"node 1 .* reads states \[2\]; it can read"),
        ((("normal", ((SKIP, CONV), (SKIP,))), ("reduce", ())), "node 1 of cell 'normal' has 2 edges"),
        ((("normal", ((SKIP, SKIP), (SKIP,))), ("reduce", ())), "expected each state once"),
        ((("normal", ((CONV, SKIP), (SKIP,))), ("reduce", ())), "in ascending order"),
    ],
)
def test_a_foreign_genotype_is_refused_by_the_name_of_its_fault(
    my_space: Space, cells: tuple[tuple[str, Cell], ...], message: str
) -> None:
    with pytest.raises(GenotypeError, match=message):
        my_space.check(Genotype(cells))


def test_reductions_that_fall_on_one_cell_are_refused() -> None:
    with pytest.raises(SpaceError, match="n_cells = 1 is too few"):
        Skeleton(init_channels=16, n_cells=1, reduce_at=THIRDS)
    assert Skeleton(init_channels=16, n_cells=2, reduce_at=THIRDS).reduction_positions == (0, 1)


def test_loading_spaces_needs_neither_torch_nor_numpy() -> None:
    program = (
        "import sys\n"
        "from metantk_nas.spaces.load import available_spaces, load_space\n"
        "print([load_space(name).size for name in available_spaces()])\n"
        "print({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
