"""Ray Tune (extra ``ray``): a search space as its parameters, scores as trials report them, a ranking to begin with.

Any search algorithm of Tune works on `param_space`: it has one categorical parameter for each of
`metantk_nas.spaces.flat.parameters`. A study of *accuracies* trains what `decode` makes of a trial's configuration; a
ranking says where it begins (`points_to_evaluate`), but scores at initialisation are never told it as if they were
accuracies. To rank many architectures, ``metantk-nas search --engine ray`` is faster: its workers stay.
"""

from collections.abc import Callable, Mapping
from typing import Any

from metantk_nas.errors import UsageError
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.extra import library
from metantk_nas.integrations.core import ArchitectureScorer
from metantk_nas.results import Ranking
from metantk_nas.spaces.flat import encode, parameters
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Space

_tune: Any = library("ray.tune", extra="ray")

Config = Mapping[str, Any]
"""A trial's configuration: the parameters, and whatever else the study is about."""


def param_space(space: Space | str) -> dict[str, Any]:
    """Return what ``tune.Tuner(param_space=…)`` takes: drawn uniformly, every architecture is as likely as another.

    Raises:
        SpaceError: there is no such space.
    """
    return {name: _tune.choice(list(values)) for name, values in parameters(_loaded(space)).items()}


def grid(space: Space | str, **fixed: str) -> dict[str, Any]:
    """Return a grid search over every architecture, or over those in which some parameters are fixed.

    Args:
        space: the search space.
        fixed: parameters that have one value, such as ``op_0_3="skip_connect"``.

    Raises:
        SpaceError: there is no such space.
        UsageError: there is no such parameter, or it has no such value.
    """
    found = parameters(_loaded(space))
    for name, value in fixed.items():
        if value not in found.get(name, ()):
            one_of = (
                f"parameter {name!r} of one of {', '.join(found[name])}" if name in found else f"one of {list(found)}"
            )
            raise UsageError(f"{name}={value!r} fixes nothing; expected {one_of}.")
    return {name: fixed.get(name) or _tune.grid_search(list(values)) for name, values in found.items()}


def trainable(scored_by: SearchSpec | ArchitectureScorer) -> Callable[[Config], None]:
    """Make what ``tune.Tuner(trainable=…)`` takes: each trial scores its architecture and reports the row.

    The row is that of `ArchitectureScorer`, so its metrics and ``params``, ``macs`` are what ``metric=`` may name. They
    are NaN where ``status`` is not ``"ok"``. The images travel with it through Ray's object store, once to each
    machine. A trial that is to compute on a GPU is given a share of one by ``tune.with_resources``.

    Args:
        scored_by: how to score; searcher and budget do not matter.
    """
    scorer = ArchitectureScorer(scored_by) if isinstance(scored_by, SearchSpec) else scored_by
    made: Callable[[Config], None] = _tune.with_parameters(_score, scorer=scorer.packed())
    return made


def points_to_evaluate(ranking: Ranking, k: int, *, space: Space | str | None = None) -> list[dict[str, str]]:
    """Return the best architectures of a ranking as configurations for a search algorithm to begin with.

    Search algorithms take them as ``points_to_evaluate=``. One architecture of each canonical key is chosen.

    Args:
        ranking: what a search returned.
        k: how many.
        space: the search space; may be left out where the ranking has the manifest of its run.

    Raises:
        UsageError: the space cannot be known, or ``k`` is not positive.
        GenotypeError: the ranking is of another space.
    """
    spec: Any = ranking.manifest.get("spec", {})
    named = space or spec.get("space")
    if not named:
        raise UsageError("this ranking does not say which search space it is of; expected space='nas_bench_201', say.")
    chosen = _loaded(named)
    return [encode(chosen, chosen.parse(arch)) for arch in ranking.top(k).frame["arch"]]


def _score(config: Config, scorer: ArchitectureScorer) -> None:
    """In a trial: score its architecture."""
    _tune.report(scorer(config))


def _loaded(space: Space | str) -> Space:
    return load_space(space) if isinstance(space, str) else space
