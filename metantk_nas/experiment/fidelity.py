"""A first look at all candidates through a smaller skeleton, so that the full size is spent on the best of them."""

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
        init_channels: channels of the smaller skeleton's first cells.
        n_cells: its cells.
        keep: share of the canonical keys that is scored at full size, in (0, 1].

    Raises:
        UsageError: a value is out of range.
    """

    init_channels: int
    n_cells: int
    keep: float

    def __post_init__(self) -> None:
        if self.init_channels < 1 or self.n_cells < 1 or not 0 < self.keep <= 1:
            raise UsageError(
                f"--fidelity got {asdict(self)}; expected init_channels and n_cells of at least 1 and keep in (0, 1]."
            )

    @classmethod
    def read(cls, text: str, space: Space) -> "Fidelity":
        """Read ``"auto"``, or ``"init_channels=16,n_cells=3,keep=0.2"`` with what is left out as in auto.

        Args:
            text: what was asked for.
            space: the search space with the full skeleton.

        Raises:
            UsageError: a name or a value means nothing.
        """
        skeleton = space.skeleton
        values: dict[str, float] = {
            "init_channels": min(skeleton.init_channels, max(8, skeleton.init_channels // 3)),
            "n_cells": min(skeleton.n_cells, len(skeleton.reduce_at) + 1),
            "keep": 0.15,
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
                    f"--fidelity: {name} is {value!r}; expected a number, as in init_channels=16,n_cells=3,keep=0.15."
                ) from None
        return cls(int(values["init_channels"]), int(values["n_cells"]), values["keep"])

    def shrink(self, space: Space) -> Space:
        """Return the space with the smaller skeleton."""
        return resize(space, init_channels=self.init_channels, n_cells=self.n_cells)

    def n_kept(self, n_keys: int) -> int:
        """How many of so many keys are scored at full size, at least 1."""
        return max(1, round(self.keep * n_keys))
