"""What every search space promises; a space's own test class inherits this and gives the ``space`` fixture."""

import pickle
import random
import re
from itertools import islice

import pytest

from metantk_nas.errors import GenotypeError
from metantk_nas.spaces.genotype import Edge, Genotype
from metantk_nas.spaces.space import Space


def edges(genotype: Genotype) -> set[tuple[str, int, Edge]]:
    return {
        (cell_type, position, edge)
        for cell_type, cell in genotype.cells
        for position, node in enumerate(cell)
        for edge in node
    }


def draw(space: Space, n: int, seed: int = 0) -> list[Genotype]:
    rng = random.Random(seed)
    return [space.sample(rng) for _ in range(n)]


class SpaceContract:
    @pytest.fixture
    def space(self) -> Space:
        raise NotImplementedError("a space's test class gives its space")

    def test_a_sample_belongs_to_the_space(self, space: Space) -> None:
        for genotype in draw(space, 200):
            space.check(genotype)

    def test_the_same_seed_draws_the_same_genotypes(self, space: Space) -> None:
        assert draw(space, 50, seed=1) == draw(space, 50, seed=1) != draw(space, 50, seed=2)

    def test_text_reads_back(self, space: Space) -> None:
        for genotype in draw(space, 200):
            assert space.parse(space.format(genotype)) == genotype

    def test_a_genotype_of_no_nodes_is_refused(self, space: Space) -> None:
        with pytest.raises(GenotypeError, match="has 0 nodes"):
            space.check(Genotype(tuple((cell_type, ()) for cell_type in space.cell_types)))

    def test_listing_is_lazy_distinct_and_inside(self, space: Space) -> None:
        first = list(islice(space.genotypes(), 500))
        assert len(set(first)) == len(first) == min(500, space.size)
        for genotype in first:
            space.check(genotype)

    def test_the_whole_space_as_a_subspace_has_the_same_size(self, space: Space) -> None:
        assert space.subspace().size == space.size

    def test_a_neighbour_is_one_edit_away_and_looks_back(self, space: Space) -> None:
        for genotype in draw(space, 5):
            neighbours = list(space.neighbours(genotype))
            assert len(set(neighbours)) == len(neighbours)
            for other in neighbours:
                space.check(other)
                gone, come = edges(genotype) - edges(other), edges(other) - edges(genotype)
                assert len(gone) == len(come) == 1
                ((_, _, (old_op, old_input)),), ((_, _, (new_op, new_input)),) = gone, come
                assert (old_op == new_op) != (old_input == new_input)
                assert genotype in space.neighbours(other)

    def test_no_neighbour_is_forgotten(self, space: Space) -> None:
        for genotype in draw(space, 5):
            expected = 0
            for _, cell in genotype.cells:
                for position, node in enumerate(cell):
                    unread = space.n_inputs + position - len(node)
                    expected += len(node) * (len(space.ops) - 1 + unread)
            assert sum(1 for _ in space.neighbours(genotype)) == expected

    def test_a_key_is_short_text_that_never_changes(self, space: Space) -> None:
        for genotype in draw(space, 50):
            assert re.fullmatch("[0-9a-f]{20}", space.key(genotype))
            assert space.key(genotype) == space.key(space.parse(space.format(genotype)))

    def test_a_representative_shares_the_key_and_represents_itself(self, space: Space) -> None:
        for genotype in draw(space, 50):
            representative = space.representative(genotype)
            space.check(representative)
            assert space.key(representative) == space.key(genotype)
            assert space.representative(representative) == representative <= genotype

    def test_space_and_genotypes_travel_between_processes(self, space: Space) -> None:
        subspace = space.subspace()
        assert subspace.live_ops
        whole = (space, subspace, draw(space, 1))
        assert pickle.loads(pickle.dumps(whole)) == whole
