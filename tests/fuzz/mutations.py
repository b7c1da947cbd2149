"""Damage that files meet: cut short, bits flipped, parts lost, doubled or mixed up, absurd numbers, strange letters."""

import io
import random
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

HUGE = (b"0", b"-1", b"255", b"65536", b"2147483648", b"4294967295", b"-9223372036854775809", b"9" * 400, b"1e999")
HUGE += (b"0x" + b"f" * 5_000, b"nan", b"-0.0", b"1_0", "\u0663".encode())
STRANGE = ("\u0000", "\ufeff", "\u202e", "é", "\U0001f426", "\ud800", "ı", "\u2028", "\r", "\x1b[31m")
OPENING = (b"[", b"{", b"(", b'{"a":', b"[[", b"-", b"'", b"(((", b"a.", b"|", b"]", b"(l")
NAMES = (b"../../escape.png", b"/escape.png", b"a/../../escape.txt", b"C:\\escape", b"~/escape", b"nul\0l", b"." * 300)


@dataclass(frozen=True)
class Step:
    """One piece of damage.

    Args:
        kind: name of a function in ``KINDS``.
        at: where, as a share of the content, in [0, 1).
        length: how much, as a share of the content, in [0, 1).
        value: which of several things.
    """

    kind: str
    at: float
    length: float
    value: int


def _cut(content: bytes, step: Step, _: Sequence[bytes]) -> bytes:
    return content[: int(step.at * len(content))]


def _flip(content: bytes, step: Step, _: Sequence[bytes]) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[int(step.at * len(changed))] ^= 1 << step.value % 8
    return bytes(changed)


def _overwrite(content: bytes, step: Step, _: Sequence[bytes]) -> bytes:
    start, width = _span(content, step, 8)
    number = (0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, 0x80, 0xFF)[step.value % 8]
    order = "little" if step.value & 8 else "big"
    return content[:start] + (number & (256**width - 1)).to_bytes(width, order) + content[start + width :]  # type: ignore[arg-type]


def _drop(content: bytes, step: Step, _: Sequence[bytes]) -> bytes:
    start, width = _span(content, step)
    return content[:start] + content[start + width :]


def _repeat(content: bytes, step: Step, _: Sequence[bytes]) -> bytes:
    start, width = _span(content, step, 4_096)
    times = (1, 2, 10, 1_000)[step.value % 4]
    return content[:start] + content[start : start + width] * min(times, 1 + 200_000 // max(width, 1)) + content[start:]


def _splice(content: bytes, step: Step, others: Sequence[bytes]) -> bytes:
    other = others[step.value % len(others)]
    start, width = _span(other, step)
    at = int(step.at * len(content))
    return content[:at] + other[start : start + width] + content[at + width :]


def _number(content: bytes, step: Step, _: Sequence[bytes]) -> bytes:
    found = list(re.finditer(rb"-?\d+(\.\d+)?", content[:20_000]))
    if not found:
        return content
    chosen = found[int(step.at * len(found))]
    return content[: chosen.start()] + HUGE[step.value % len(HUGE)] + content[chosen.end() :]


def _strange(content: bytes, step: Step, _: Sequence[bytes]) -> bytes:
    at = int(step.at * len(content))
    letter = STRANGE[step.value % len(STRANGE)]
    return content[:at] + letter.encode("utf-8", "surrogatepass") * (1 + step.value // 64) + content[at:]


def _nest(content: bytes, step: Step, _: Sequence[bytes]) -> bytes:
    at, depth = int(step.at * len(content)), (2, 90, 900, 60_000)[step.value // 16 % 4]
    return content[:at] + OPENING[step.value % len(OPENING)] * depth + content[at:]


def _word(content: bytes, step: Step, others: Sequence[bytes]) -> bytes:
    """Put a word of another file in the place of a word."""
    words = re.findall(rb"[\w.~<>-]+", others[step.value % len(others)][:20_000]) + list(NAMES)
    here = list(re.finditer(rb"[\w.~<>-]+", content[:20_000]))
    if not here:
        return content
    chosen = here[int(step.at * len(here))]
    return content[: chosen.start()] + words[int(step.length * len(words))] + content[chosen.end() :]


def _member(content: bytes, step: Step, others: Sequence[bytes]) -> bytes:
    """Damage one member of a zip archive, or its name, and pack it again: checksums fit."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(each.filename, archive.read(each)) for each in archive.infolist()]
    except Exception:  # an archive that was damaged before, in whatever way
        return content
    place = int(step.at * len(members))
    if not members:
        return content
    name, inside = members[place]
    kind = _IN_MEMBER[step.value % len(_IN_MEMBER)]
    again = Step(kind, step.length, (7 * step.at) % 1, step.value // len(_IN_MEMBER))
    if step.value % 11 == 0:
        name = NAMES[step.value % len(NAMES)].decode()
    members[place] = (name, KINDS[kind](inside, again, [each for _, each in members]))
    stream = io.BytesIO()
    with (
        warnings.catch_warnings(),
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if step.value % 2 else zipfile.ZIP_STORED) as archive,
    ):
        warnings.simplefilter("ignore")  # of two members with one name
        for each, inside in members:
            archive.writestr(zipfile.ZipInfo(each.replace("\0", "") or "_"), inside)
    return stream.getvalue()


def _span(content: bytes, step: Step, most: int = 1 << 20) -> tuple[int, int]:
    start = int(step.at * len(content))
    width = max(1, min(most, int(step.length**3 * len(content))))  # mostly short
    return start, min(width, len(content) - start)


KINDS: dict[str, Callable[[bytes, Step, Sequence[bytes]], bytes]] = {
    "cut": _cut,
    "flip": _flip,
    "overwrite": _overwrite,
    "drop": _drop,
    "repeat": _repeat,
    "splice": _splice,
    "number": _number,
    "strange": _strange,
    "nest": _nest,
    "word": _word,
    "member": _member,
}
_IN_MEMBER = [kind for kind in KINDS if kind != "member"]


def damaged(content: bytes, steps: Sequence[Step], others: Sequence[bytes]) -> bytes:
    """Apply the steps, one after the other.

    Args:
        content: a valid file.
        steps: what happens to it.
        others: valid files to take parts from, at least one.
    """
    for step in steps:
        content = KINDS[step.kind](content, step, others)
    return content


def random_steps(rng: random.Random) -> list[Step]:
    """Draw a few steps."""
    kinds = rng.choices(list(KINDS), k=rng.choice((1, 1, 1, 2, 3, 6)))
    return [Step(kind, rng.random(), rng.random(), rng.randrange(1_024)) for kind in kinds]
