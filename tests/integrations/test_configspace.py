"""ConfigSpace: the space of configurations is the space of architectures."""

import pytest

from metantk_nas.errors import GenotypeError
from metantk_nas.rng import python_generator
from metantk_nas.spaces.load import available_spaces, load_space

configspace = pytest.importorskip("ConfigSpace", reason="ConfigSpace is in the extra 'configspace'")
adapter = pytest.importorskip("metantk_nas.integrations.configspace")


@pytest.fixture(scope="module", params=available_spaces())
def space(request):
    return load_space(request.param)


def test_there_are_as_many_configurations_as_architectures(space):
    assert adapter.to_configspace(space).estimate_size() == space.size


def test_every_configuration_is_an_architecture(space):
    found = adapter.to_configspace(space, seed=1)
    for configuration in found.sample_configuration(200):
        genotype = adapter.from_configuration(space, configuration)
        space.check(genotype)
        assert adapter.to_configuration(space, genotype, found) == configuration
        assert type(genotype.cells[0][1][0][0][0]) is str


def test_every_architecture_is_a_configuration(space):
    found, rng = adapter.to_configspace(space), python_generator(0, "test")
    for genotype in (space.sample(rng) for _ in range(200)):
        configuration = adapter.to_configuration(space, genotype, found)
        configuration.check_valid_configuration()
        assert adapter.from_configuration(space, configuration) == genotype


def test_neighbours_and_the_default_are_architectures(space):
    found = adapter.to_configspace(space, seed=3)
    default = found.get_default_configuration()
    assert space.is_connected(adapter.from_configuration(space, default))
    for neighbour in configspace.util.get_one_exchange_neighbourhood(default, seed=0):
        space.check(adapter.from_configuration(space, neighbour))


def test_it_stands_beside_other_hyperparameters(space):
    found = adapter.to_configspace(space, seed=0)
    found.add(configspace.Float("learning_rate", (1e-4, 1e-1), log=True))
    space.check(adapter.from_configuration(space, found.sample_configuration()))


def test_what_is_not_of_the_space_is_refused(space):
    other = configspace.ConfigurationSpace({"learning_rate": (0.1, 1.0)})
    with pytest.raises(GenotypeError, match="is missing"):
        adapter.from_configuration(space, other.sample_configuration())
