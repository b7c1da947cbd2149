"""One architecture at a time gives the rows of a search."""

import pickle

import pytest

import metantk_nas
from metantk_nas.errors import GenotypeError
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.integrations.core import ArchitectureScorer
from metantk_nas.spaces.flat import encode
from tests.small_search import SMALL

NO_PATH = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


@pytest.fixture(scope="module")
def scorer():
    return ArchitectureScorer(SearchSpec(**SMALL, metrics="naswot", device="cpu"))


def test_rows_are_those_of_a_search(scorer, tmp_path):
    ranking = metantk_nas.search(**SMALL, metrics="naswot", device="cpu", out=tmp_path).frame.set_index("arch")
    for arch in list(ranking.index)[:4]:
        row, expected = scorer(arch), ranking.loc[arch]
        assert (row["key"], row["status"], row["params"]) == (expected["key"], expected["status"], expected["params"])
        for name in ("condition_number", "condition_number_sd", "trace", "naswot"):
            assert row[name] == pytest.approx(expected[name], rel=1e-6), name


def test_text_object_and_parameters_are_the_same_architecture(scorer):
    space = scorer.space
    genotype = space.parse("|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|")
    rows = [scorer(each) for each in (space.format(genotype), genotype, encode(space, genotype))]
    for row in rows:
        del row["seconds"]
    assert rows[0] == rows[1] == rows[2]


def test_it_travels_light_and_works_on_arrival(scorer):
    there = pickle.loads(pickle.dumps(scorer))
    assert len(pickle.dumps(scorer)) < 5_000
    arch = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
    assert there(arch)["condition_number"] == scorer(arch)["condition_number"]


def test_trouble_has_a_name(scorer):
    row = scorer(NO_PATH)
    assert row["status"] == "no_signal"
    assert row["reason"]
    with pytest.raises(GenotypeError):
        scorer("|nor_conv_9x9~0|")
