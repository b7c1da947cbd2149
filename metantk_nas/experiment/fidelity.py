"""Cheap looks at all candidates, so that the full effort is spent on the best of them.

A look saves repeats, or takes smaller images or a smaller skeleton; each look keeps the best of what the look before
it kept. Measured on 1,000 few-shot DARTS cells (48 channels, 5 cells, 32 pixels, 3 repeats; condition number + trace):

- One repeat of images of 16 pixels costs a tenth of the full score and has Spearman ρ = .87 to .92 with it; 18 to 20
  of the full score's best 20 are among its best 25 %.
- One repeat of three at full size has ρ = .96 to .97; the best 20 are all among its best 10 %. Its scores are part of
  the full score, so the look costs nothing for what it keeps.
- Narrow and shallow networks order these cells differently: 16 channels and 3 cells have ρ = .45.

So ``auto`` takes images of half the size first, then one repeat at full size.
"""

from dataclasses import dataclass, fields, replace

from metantk_nas.errors import UsageError, unknown_name
from metantk_nas.networks.build import resize
from metantk_nas.spaces.space import Space

AUTO = "auto"
EXAMPLE = "image_size=16,keep=0.25/repeats=1,keep=0.4"
PREFIXES = ("cheap_", "cheap2_", "cheap3_")
"""What the names of scorers and metrics of a look begin with, where its network is not that of the full score."""
MIN_IMAGE_SIZE = 8


@dataclass(frozen=True)
class Look:
    """How one look is taken.

    Args:
        image_size: height and width in pixels.
        init_channels: channels of the first cells.
        n_cells: number of stacked cells.
        repeats: re-initialisations.
        keep: share of the canonical keys it has seen that goes on to the next look, or to the full score, in (0, 1].

    Raises:
        UsageError: a value is out of range.
    """

    image_size: int
    init_channels: int
    n_cells: int
    repeats: int = 1
    keep: float = 0.25

    def __post_init__(self) -> None:
        if min(self.image_size, self.init_channels, self.n_cells, self.repeats) < 1 or not 0 < self.keep <= 1:
            raise UsageError(f"--fidelity got {self}; expected whole numbers of at least 1, and keep in (0, 1].")

    def __str__(self) -> str:
        counted = ((self.init_channels, "channel"), (self.n_cells, "cell"), (self.repeats, "repeat"))
        words = [f"{n} {name}{'s' * (n > 1)}" for n, name in counted]
        return ", ".join([f"{self.image_size} pixels", *words])

    def shrink(self, space: Space) -> Space:
        """Return the space with the skeleton of the look."""
        return resize(space, init_channels=self.init_channels, n_cells=self.n_cells)

    def n_kept(self, n_keys: int) -> int:
        """How many of so many keys go on, at least 1."""
        return max(1, round(self.keep * n_keys))

    def same_network(self, full: "Look") -> bool:
        """Whether its scores are those of a repeat of the full size."""
        return replace(self, repeats=full.repeats, keep=full.keep) == full


def read_looks(text: str, full: Look) -> tuple[Look, ...]:
    """Read ``"auto"``, or looks such as ``"image_size=16,keep=0.25/repeats=1,keep=0.4"``.

    What a look leaves out is as at full size, but for one repeat and a quarter that is kept. A look that costs as much
    as the full score saves nothing, and is passed over.

    Args:
        text: what was asked for; none where empty.
        full: the full size.

    Raises:
        UsageError: a name or a value means nothing, or there are too many looks.
    """
    if text == AUTO:
        small = replace(full, image_size=max(full.image_size // 2, min(MIN_IMAGE_SIZE, full.image_size)))
        looks = [replace(small, repeats=1, keep=0.25), replace(full, repeats=1, keep=0.4)]
    else:
        looks = [_read_look(part, full) for part in text.split("/")] if text else []
    if len(looks) > len(PREFIXES):
        raise UsageError(f"--fidelity {text!r} takes {len(looks)} looks; expected {len(PREFIXES)} at most.")
    return tuple(look for look in looks if not look.same_network(full) or look.repeats < full.repeats)


def _read_look(text: str, full: Look) -> Look:
    kinds = {field.name: float if field.name == "keep" else int for field in fields(Look)}
    values: dict[str, float] = {"repeats": 1, "keep": 0.25}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in kinds:
            raise unknown_name("part of --fidelity", name, [AUTO, *kinds])
        try:
            values[name] = kinds[name](value)
        except ValueError:
            raise UsageError(f"--fidelity: {name} is {value!r}; expected a number, as in {EXAMPLE}.") from None
    return replace(full, **values)  # type: ignore[arg-type]  # whole but for keep, as `kinds` says
