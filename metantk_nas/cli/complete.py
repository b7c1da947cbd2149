"""What a shell offers when Tab is pressed behind an option; nothing heavy is imported before that."""

from collections.abc import Callable, Iterable
from pathlib import Path

Completer = Callable[[str], list[str]]


def spaces(incomplete: str) -> list[str]:
    """Complete a search space: names, then TOML files and directories."""
    from metantk_nas.spaces.load import available_spaces

    return [*_begin(available_spaces(), incomplete), *_paths(incomplete, ".toml")]


def data(incomplete: str) -> list[str]:
    """Complete a data set: names, then directories and zip files."""
    from metantk_nas.episodes.load import available_datasets

    return [*_begin(available_datasets(), incomplete), *_paths(incomplete, ".zip")]


def presets(incomplete: str) -> list[str]:
    """Complete a preset of a paper."""
    from metantk_nas.experiment.spec import PRESETS

    return _begin(PRESETS, incomplete)


def searchers(incomplete: str) -> list[str]:
    """Complete a searcher."""
    from metantk_nas.searchers.registry import SEARCHERS

    return _begin(SEARCHERS, incomplete)


def learners(incomplete: str) -> list[str]:
    """Complete a learner."""
    from metantk_nas.learners.registry import LEARNERS

    return _begin(LEARNERS, incomplete)


def metrics(incomplete: str) -> list[str]:
    """Complete the last of comma-separated metrics."""
    from metantk_nas.scorers.registry import METRICS

    return _last(incomplete, METRICS)


def rules(incomplete: str) -> list[str]:
    """Complete a ranking preset, or the last of comma-separated metrics."""
    from metantk_nas.scorers.registry import METRICS, PRESETS

    return _last(incomplete, METRICS if "," in incomplete else [*PRESETS, *METRICS])


def rank_presets(incomplete: str) -> list[str]:
    """Complete the last of comma-separated ranking presets."""
    from metantk_nas.scorers.registry import PRESETS

    return _last(incomplete, PRESETS)


def objectives(incomplete: str) -> list[str]:
    """Complete the last of comma-separated objectives."""
    from metantk_nas.scorers.registry import METRICS

    return _last(incomplete, ["score", *METRICS])


def _begin(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _last(incomplete: str, names: Iterable[str]) -> list[str]:
    """Complete what follows the last comma by a name that was not given yet."""
    before, comma, last = incomplete.rpartition(",")
    given = set(before.split(","))
    return [f"{before}{comma}{name}" for name in _begin(names, last) if name not in given]


def _paths(incomplete: str, suffix: str) -> list[str]:
    """Directories, and files of a kind, that begin with what was typed."""
    folder, slash, begin = incomplete.rpartition("/")
    try:
        found = sorted(Path(folder + slash or ".").iterdir())
    except OSError:
        return []
    fitting = [each for each in found if each.is_dir() or each.suffix == suffix]
    names = [f"{each.name}/" if each.is_dir() else each.name for each in fitting]
    return [f"{folder}{slash}{name}" for name in _begin(names, begin) if begin.startswith(".") or name[0] != "."]
