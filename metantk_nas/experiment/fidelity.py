"""A first look at all candidates, so that the full effort is spent on the best of them.

The look saves repeats, or takes a smaller skeleton. Measured on 1,000 few-shot DARTS cells (48 channels, 5 cells, 3
repeats; condition number + trace): one repeat of three has Spearman ρ = .96 to .97 with the whole, and the best 20 are
all among its best 10 %. A skeleton of 16 channels and 3 cells has ρ = .45 and keeps 6 of the 20 among its best 15 %;
one of 16 channels and 5 cells, on 423 of the cells, ρ = .76 and 4 of the best 9. So ``auto`` saves repeats.
"""

from dataclasses import asdict, dataclass, fields

from metantk_nas.errors import UsageError, unknown_name
from metantk_nas.networks.build import resize
from metantk_nas.spaces.space import Space

AUTO = "auto"
PREFIX = "cheap_"
"""What the names of scorers and metrics of the first look begin with."""


@dataclass(frozen=True)
class Fidelity:
    """How the first look is taken.

    Args:
        init_channels: channels of the first cells.
        n_cells: number of stacked cells.
        repeats: re-initialisations.
        keep: share of the canonical keys that is scored at full size, in (0, 1].

    Raises:
        UsageError: a value is out of range.
    """

    init_channels: int
    n_cells: int
    repeats: int
    keep: float

    def __post_init__(self) -> None:
        if min(self.init_channels, self.n_cells, self.repeats) < 1 or not 0 < self.keep <= 1:
            raise UsageError(
                f"--fidelity got {asdict(self)}; expected whole numbers of at least 1, and keep in (0, 1]."
            )

    @classmethod
    def read(cls, text: str, space: Space) -> "Fidelity":
        """Read ``"auto"``, or ``"repeats=1,init_channels=32,keep=0.2"`` with what is left out as in auto.

        Args:
            text: what was asked for.
            space: the search space with the full skeleton.

        Raises:
            UsageError: a name or a value means nothing.
        """
        skeleton = space.skeleton
        values: dict[str, float] = {
            "init_channels": skeleton.init_channels,
            "n_cells": skeleton.n_cells,
            "repeats": 1,
            "keep": 0.1,
        }
        kinds = {field.name: float if field.name == "keep" else int for field in fields(cls)}
        for part in [] if text == AUTO else text.split(","):
            name, _, value = (word.strip() for word in part.partition("="))
            if name not in kinds:
                raise unknown_name("part of --fidelity", name, [AUTO, *kinds])
            try:
                values[name] = kinds[name](value)
            except ValueError:
                raise UsageError(
                    f"--fidelity: {name} is {value!r}; expected a number, as in repeats=1,init_channels=32,keep=0.2."
                ) from None
        channels, cells, repeats = (int(values[name]) for name in ("init_channels", "n_cells", "repeats"))
        return cls(channels, cells, repeats, values["keep"])

    def shrink(self, space: Space) -> Space:
        """Return the space with the skeleton of the look."""
        return resize(space, init_channels=self.init_channels, n_cells=self.n_cells)

    def n_kept(self, n_keys: int) -> int:
        """How many of so many keys are scored at full size, at least 1."""
        return max(1, round(self.keep * n_keys))
