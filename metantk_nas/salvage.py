"""What is left in a damaged SQLite file: every record that can still be taken apart, page by page.

SQLite gives up at the first broken page. Its pages stand alone, though (sqlite.org/fileformat2.html): a leaf that was
spared holds whole records, whatever became of the pages that lead to it. Whether a record is what was written is for
the caller to say, who has a checksum.
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

Value = int | float | str | bytes | None
Record = tuple[int | None, tuple[Value, ...]]
"""Row number, None in tables without one, and the columns."""
Pages = Mapping[int, bytes]
"""Pages by their number, from 1."""

PAGE_SIZE = 4_096
"""SQLite's own, taken where the file does not say."""

MAX_RECORD, MAX_COLUMNS, MIN_CELL = 1 << 20, 100, 6
"""Bytes of one record, its columns, and bytes that a record takes on a page with its place: rubbish claims more."""

_FILE_HEADER, _LOG_HEADER, _FRAME_HEADER = 100, 32, 24
_INDEX_BRANCH, _INDEX_LEAF, _TABLE_LEAF = 0x02, 0x0A, 0x0D
_WHOLE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
"""Bytes of a whole number by its type code."""


def records(path: Path) -> Iterator[Record]:
    """Yield the records of all tables, those that only the log (``-wal``) has last; some may come more than once.

    Raises:
        OSError: the file cannot be read.
    """
    content, log = (each.read_bytes() if each.exists() else b"" for each in (path, path.with_name(f"{path.name}-wal")))
    said = int.from_bytes(content[16:18], "big")
    for size in {PAGE_SIZE, said} if said in [1 << power for power in range(9, 16)] else {PAGE_SIZE}:
        pages = {1 + start // size: content[start : start + size] for start in range(0, len(content), size)}
        yield from _records(pages, size)
        frames = range(_LOG_HEADER, len(log) - _FRAME_HEADER, _FRAME_HEADER + size)
        logged = {int.from_bytes(log[at : at + 4], "big"): log[at + _FRAME_HEADER :][:size] for at in frames}
        yield from _records({**pages, **logged}, size)


def _records(pages: Pages, size: int) -> Iterator[Record]:
    for number, page in pages.items():
        at = _FILE_HEADER if number == 1 else 0
        if len(page) < size or page[at] not in (_INDEX_BRANCH, _INDEX_LEAF, _TABLE_LEAF):
            continue
        first = at + (12 if page[at] == _INDEX_BRANCH else 8)
        n_cells = min(int.from_bytes(page[at + 3 : at + 5], "big"), size // MIN_CELL)
        for place in range(first, first + 2 * n_cells, 2):
            try:
                yield _record(pages, page, int.from_bytes(page[place : place + 2], "big"), page[at])
            except (LookupError, ValueError, struct.error):
                continue


def _record(pages: Pages, page: bytes, at: int, kind: int) -> Record:
    """Take one record apart, with the pages that it runs over to."""
    length, at = _varint(page, at + 4 * (kind == _INDEX_BRANCH))
    row, at = _varint(page, at) if kind == _TABLE_LEAF else (None, at)
    if length > min(MAX_RECORD, len(pages) * len(page)):
        raise ValueError("no record is as long as that")
    size = len(page)
    most = size - 35 if kind == _TABLE_LEAF else (size - 12) * 64 // 255 - 23
    if length <= most:
        return row, _columns(page[at : at + length])
    least = (size - 12) * 32 // 255 - 23
    here = least + (length - least) % (size - 4)
    here = here if here <= most else least
    parts, following, found = [page[at : at + here]], page[at + here : at + here + 4], here
    while found < length:
        more = pages[int.from_bytes(following, "big")]
        following, found = more[:4], found + len(more) - 4
        parts.append(more[4:])
    return row, _columns(b"".join(parts)[:length])


def _columns(record: bytes) -> tuple[Value, ...]:
    body, at = _varint(record, 0)
    codes: list[int] = []
    while at < body:
        code, at = _varint(record, at)
        codes.append(code)
        if len(codes) > MAX_COLUMNS:
            raise ValueError("no table has as many columns")
    values: list[Value] = []
    for code in codes:
        value, at = _value(record, at, code)
        values.append(value)
    return tuple(values)


def _value(record: bytes, at: int, code: int) -> tuple[Value, int]:
    """Read one column; its code says type and length."""
    if code in (0, 8, 9):
        return {0: None, 8: 0, 9: 1}[code], at
    length = _WHOLE.get(code) or (8 if code == 7 else (code - 12) // 2)
    content, at = record[at : at + length], at + length
    if len(content) < length or code in (10, 11):
        raise ValueError("the record ends too early")
    if code in _WHOLE:
        return int.from_bytes(content, "big", signed=True), at
    if code == 7:
        return float(struct.unpack(">d", content)[0]), at
    return content if code % 2 == 0 else content.decode(), at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Read a number of one to nine bytes, and where it ends."""
    value = 0
    for place in range(at, at + 8):
        value = value << 7 | content[place] & 0x7F
        if content[place] < 0x80:
            return value, place + 1
    return value << 8 | content[at + 8], at + 9
