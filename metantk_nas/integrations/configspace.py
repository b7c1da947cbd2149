"""ConfigSpace (extra ``configspace``): a search space for SMAC, DEHB, auto-sklearn and others that speak it."""

from typing import TYPE_CHECKING, Any

from metantk_nas.extra import library
from metantk_nas.rng import python_generator
from metantk_nas.spaces.flat import decode, encode, parameters
from metantk_nas.spaces.genotype import Genotype
from metantk_nas.spaces.space import Space

if TYPE_CHECKING:
    from ConfigSpace import Configuration, ConfigurationSpace

DRAWS = 100
"""How many architectures are drawn to find a default configuration."""

_configspace: Any = library("ConfigSpace", extra="configspace")


def to_configspace(space: Space, *, seed: int = 0) -> "ConfigurationSpace":
    """Write a search space as categorical hyperparameters (`metantk_nas.spaces.flat`).

    Conditions and forbidden clauses are not needed: every configuration is an architecture, and every architecture is
    one configuration. The default configuration, where optimisers like to begin, is a random one whose output depends
    on its input.

    Args:
        space: any search space; its skeleton is not part of a configuration.
        seed: seed of the configuration space, and of its default configuration.
    """
    rng = python_generator(seed, "configspace")
    drawn = [space.sample(rng) for _ in range(DRAWS)]
    start = encode(space, next(filter(space.is_connected, drawn), drawn[0]))
    hyperparameters = [
        _configspace.CategoricalHyperparameter(name, choices, default_value=start[name])
        for name, choices in parameters(space).items()
    ]
    found: ConfigurationSpace = _configspace.ConfigurationSpace(name=space.name, seed=seed, space=hyperparameters)
    return found


def to_configuration(space: Space, genotype: Genotype, configspace: "ConfigurationSpace") -> "Configuration":
    """Write an architecture as a configuration of what `to_configspace` returned.

    Raises:
        GenotypeError: the genotype is not in the space.
    """
    found: Configuration = _configspace.Configuration(configspace, values=encode(space, genotype))
    return found


def from_configuration(space: Space, configuration: "Configuration") -> Genotype:
    """Read the architecture of a configuration; its other hyperparameters are passed over.

    Raises:
        GenotypeError: a parameter of the space is missing, or its value is none of those it may have.
    """
    return decode(space, {name: str(value) for name, value in configuration.items()})
