"""Random search spaces, as users might write them, and random genotypes of a space."""

import random
from fractions import Fraction

from hypothesis import strategies as st

from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.ops import OPS
from metantk_nas.spaces.space import Skeleton, Space

SKELETON = Skeleton(init_channels=4, n_cells=3, reduce_at=(Fraction(1, 3), Fraction(2, 3)))


@st.composite
def spaces(draw: st.DrawFn, max_nodes: int = 4, max_ops: int = 5) -> Space:
    n_inputs = draw(st.integers(1, 2))
    return Space(
        name="random",
        description="",
        source="",
        cell_types=draw(st.sampled_from([("cell",), ("normal", "reduce")])),
        n_inputs=n_inputs,
        n_nodes=draw(st.integers(1, max_nodes)),
        edges_per_node=draw(st.none() | st.integers(1, n_inputs)),
        output=draw(st.sampled_from(["concat", "last"])),
        ops=tuple(draw(st.lists(st.sampled_from(sorted(OPS)), min_size=1, max_size=max_ops, unique=True))),
        skeleton=SKELETON,
    )


def genotypes(space: Space) -> st.SearchStrategy[Genotype]:
    return st.integers(0, 2**32).map(lambda seed: space.sample(random.Random(seed)))
