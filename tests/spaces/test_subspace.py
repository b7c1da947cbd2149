import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metantk_nas.errors import SpaceError
from metantk_nas.spaces.space import Space
from metantk_nas.spaces.subspace import EdgeSlot, SubSpace
from tests.spaces.strategies import spaces


def prune_to_one(space: Space, seed: int) -> SubSpace:
    """Remove live operations at random for as long as a genotype is left."""
    rng = random.Random(seed)
    subspace = space.subspace()
    choices = [(slot, op) for slot, ops in subspace.slots for op in ops]
    rng.shuffle(choices)
    for slot, op in choices:
        try:
            narrowed = subspace.without(slot, op)
        except SpaceError:
            continue
        assert 0 < narrowed.size < subspace.size
        subspace = narrowed
    return subspace


@settings(deadline=None, max_examples=50)
@given(spaces(), st.integers())
def test_pruning_as_far_as_it_goes_ends_in_a_genotype_of_the_space(space: Space, seed: int) -> None:
    subspace = prune_to_one(space, seed)
    assert subspace.is_genotype
    space.check(subspace.genotype())


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_a_narrower_space_has_exactly_the_genotypes_that_avoid_the_operation(data: st.DataObject) -> None:
    space = data.draw(spaces(max_nodes=2, max_ops=3))
    slot = data.draw(st.sampled_from([slot for slot, _ in space.subspace().slots]))
    op = data.draw(st.sampled_from(space.ops))
    left = sum((op, slot.input) not in genotype.cell(slot.cell_type)[slot.node] for genotype in space.genotypes())
    if left:
        narrowed = space.subspace().without(slot, op)
        assert narrowed.size == left
        assert narrowed.live_ops[slot] == tuple(live for live in space.ops if live != op)
    else:
        with pytest.raises(SpaceError, match="leaves no genotype"):
            space.subspace().without(slot, op)


def test_a_subspace_is_a_value(my_space: Space) -> None:
    whole = my_space.subspace()
    slot = EdgeSlot("reduce", 1, 2)
    narrowed = whole.without(slot, "skip_connect")
    assert whole == my_space.subspace() != narrowed
    assert len({whole, my_space.subspace(), narrowed}) == 2
    assert narrowed.without(slot, "max_pool_3x3") == whole.without(slot, "max_pool_3x3").without(slot, "skip_connect")


def test_impossible_removals_say_why(my_space: Space) -> None:
    whole = my_space.subspace()
    with pytest.raises(SpaceError, match=r"\('normal', 0, 2\) is not an edge"):
        whole.without(EdgeSlot("normal", 0, 2), "skip_connect")
    with pytest.raises(SpaceError, match="Did you mean 'skip_connect'"):
        whole.without(EdgeSlot("normal", 0, 1), "skip_conect")
    with pytest.raises(SpaceError, match="2,916 genotypes is not a genotype"):
        whole.genotype()
