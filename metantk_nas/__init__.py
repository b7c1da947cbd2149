"""MetaNTK-NAS: rank untrained architectures for few-shot learning by their Meta Neural Tangent Kernel.

>>> from metantk_nas import search, train
>>> ranking = search(space="darts_fewshot", data="glyphs", budget=20, out="results/first")
>>> best = ranking.top(1).frame.iloc[0]
>>> network = ranking.build(best)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metantk_nas.api import score as score
    from metantk_nas.api import score_module as score_module
    from metantk_nas.api import search as search
    from metantk_nas.api import train as train
    from metantk_nas.spaces.load import load_space as load_space

__all__ = ["load_space", "score", "score_module", "search", "train"]

_HOMES = {
    "load_space": "metantk_nas.spaces.load",
    "score": "metantk_nas.api",
    "score_module": "metantk_nas.api",
    "search": "metantk_nas.api",
    "train": "metantk_nas.api",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``import metantk_nas`` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - see above

    return getattr(import_module(_HOMES[name]), name)
