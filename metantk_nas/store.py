"""The scores of a run, on disk: what was committed survives ``kill -9``, and an interrupted run goes on from it.

One SQLite file holds three tables: ``meta`` (schema version and fingerprint of the run), ``candidate`` (what was
asked for, in order) and ``score`` (one row per key, repeat and scorer). A ranking can be rebuilt from it alone.

Every row has a checksum, which belongs to the run: SQLite has none, and a flipped bit would pass for a score. A file
that is damaged is noticed when it is opened, and made anew from the rows that are sound.
"""

import errno
import json
import math
import os
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from metantk_nas.errors import RunError, brief_text
from metantk_nas.salvage import Record, Value, records
from metantk_nas.types import Score

SCHEMA_VERSION = 3
_TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE candidate (
        position INTEGER PRIMARY KEY, arch TEXT NOT NULL, key TEXT NOT NULL, representative TEXT NOT NULL,
        params INTEGER NOT NULL, macs INTEGER NOT NULL, is_genotype INTEGER NOT NULL, checksum INTEGER NOT NULL)""",
    """CREATE TABLE score (
        key TEXT NOT NULL, repeat INTEGER NOT NULL, scorer TEXT NOT NULL, metric_values TEXT NOT NULL,
        status TEXT NOT NULL, reason TEXT NOT NULL, seconds REAL NOT NULL, checksum INTEGER NOT NULL,
        PRIMARY KEY (key, repeat, scorer)) WITHOUT ROWID""",
)
_SELECT_CANDIDATES = "SELECT position, arch, key, representative, params, macs, is_genotype FROM candidate"
_SELECT_SCORES = "SELECT key, repeat, scorer, metric_values, status, reason, seconds FROM score"
_LOCK_WAIT_SECONDS = 1.0
_NOT_WRITABLE = "cannot be opened for writing; check the path and its permissions, or choose another --out"
_NOT_A_STORE = "is not an intact score store; choose another --out, or move the file away to start afresh"
_IN_USE = "is in use by another live process; wait for it to end, or choose another --out"
_KEPT = "what was committed before is kept, and the same command goes on from there"
_ADVICE = {
    sqlite3.SQLITE_FULL: f"cannot grow, no space is left; free some space: {_KEPT}",
    sqlite3.SQLITE_IOERR: f"cannot be written; check the disk, its quota and your permissions: {_KEPT}",
    sqlite3.SQLITE_BUSY: _IN_USE,
    sqlite3.SQLITE_LOCKED: _IN_USE,
    sqlite3.SQLITE_PROTOCOL: _IN_USE,
    sqlite3.SQLITE_CANTOPEN: _NOT_WRITABLE,
    sqlite3.SQLITE_READONLY: _NOT_WRITABLE,
    sqlite3.SQLITE_PERM: _NOT_WRITABLE,
}
"""What to do where the store is not to blame, by SQLite's code."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Candidate:
    """One architecture that a search asked for: a genotype, or a subspace on the way to one.

    Args:
        position: place in the order of asking, from 0.
        arch: text of the architecture as it was asked.
        key: its canonical key; candidates that compute the same function share it.
        representative: text of the member of the key that is scored.
        params: trainable parameters that reach the output.
        macs: multiply-accumulate operations for one image, of what reaches the output.
        is_genotype: whether it is finished; subspaces are scored, but never ranked.
    """

    position: int
    arch: str
    key: str
    representative: str
    params: int
    macs: int
    is_genotype: bool = True


class _DamagedError(RunError):
    """The file is not what was written.

    Args:
        path: the file.
        what: how it shows.
    """

    def __init__(self, path: Path, what: object) -> None:
        super().__init__(f"{path} is damaged ({brief_text(what)}); the same command goes on from what is sound in it.")
        self.what = brief_text(what)


def json_text(value: object, indent: int | None = None) -> str:
    """Write ``value`` as standard JSON with sorted keys; floats keep all their digits.

    JSON knows no NaN and no infinity: they become the strings ``"nan"``, ``"inf"`` and ``"-inf"``,
    which ``float`` reads back.
    """
    return json.dumps(_finite(value), indent=indent, sort_keys=True, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value


class ScoreStore:
    """Scores and candidates of one run in one SQLite file, held by one live process at a time.

    Use it as a context manager. Each ``put`` and ``add_candidates`` is one transaction: all of it is there, or none.

    Args:
        path: the file; it and its parent directories are made when they do not exist.
        fingerprint: what makes this run the run it is (space, data, seed, settings …); JSON values by name.
            A file that holds another fingerprint is refused.
        note: told when the file was damaged and what became of it. The damaged one is kept as ``<name>.damaged``.

    Raises:
        RunError: the file belongs to another run, has nothing sound in it, cannot be written or is in use.
    """

    def __init__(
        self, path: Path, fingerprint: Mapping[str, object], note: Callable[[str], None] | None = None
    ) -> None:
        self.path = path
        self._fingerprint = json_text(fingerprint)
        try:
            self._open()
        except _DamagedError as damage:
            told = self._rebuild(fingerprint, damage.what)
            self._open()
            if note is not None:
                note(told)

    def _open(self) -> None:
        """Take the file, and look whether all of it is sound."""
        with self._errors_that_teach():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=_LOCK_WAIT_SECONDS, isolation_level=None)
        try:
            with self._errors_that_teach():
                self._lock()
                self._create_or_check()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; a later ``ScoreStore`` may open it."""
        self._database.close()

    def put(self, scores: Iterable[Score]) -> None:
        """Commit scores, all or none.

        Raises:
            RunError: one of them is there already (no key is scored twice), or the disk is full.
        """
        ready = list(scores)
        with self._transaction():
            for score in ready:
                self._insert_score(score)

    def forget(self, status: str, *, and_order: bool) -> int:
        """Take back the scores of a status, so that they are missing again; all of them, or none.

        Args:
            status: of the scores.
            and_order: take back the candidates too, where there are such scores: what was asked after them may have
                depended on them. They are added again as they are asked again; scores that stay are kept.

        Returns:
            How many scores there were.
        """
        with self._transaction():
            n_scores = self._database.execute("DELETE FROM score WHERE status = ?", (status,)).rowcount
            if n_scores and and_order:
                self._database.execute("DELETE FROM candidate")
        return n_scores

    def missing(self, keys: Iterable[str], repeat: int, scorer: str) -> list[str]:
        """Those of ``keys`` that ``scorer`` has not scored in ``repeat``: in their order, each once."""
        query = "SELECT 1 FROM score WHERE key = ? AND repeat = ? AND scorer = ?"
        with self._errors_that_teach():
            return [
                key
                for key in dict.fromkeys(keys)
                if self._database.execute(query, (key, repeat, scorer)).fetchone() is None
            ]

    def scores(self, keys: Iterable[str] | None = None) -> Iterator[Score]:
        """Yield the scores of ``keys``, or of all keys, ordered by key, repeat and scorer."""
        with self._errors_that_teach():
            if keys is None:
                yield from map(_score, self._database.execute(f"{_SELECT_SCORES} ORDER BY key, repeat, scorer"))
                return
            query = f"{_SELECT_SCORES} WHERE key = ? ORDER BY repeat, scorer"
            for key in sorted(set(keys)):
                yield from map(_score, self._database.execute(query, (key,)))

    @property
    def seconds(self) -> float:
        """What all scores took together."""
        with self._errors_that_teach():
            return float(self._database.execute("SELECT TOTAL(seconds) FROM score").fetchone()[0])

    def add_candidates(self, candidates: Iterable[Candidate]) -> None:
        """Commit candidates, all or none; those that are there already, unchanged, are passed over.

        Raises:
            RunError: another candidate holds the same position, or the disk is full.
        """
        ready = list(candidates)
        with self._transaction():
            for candidate in ready:
                self._insert_candidate(candidate)

    def candidates(self) -> Iterator[Candidate]:
        """Yield the candidates in the order in which they were asked."""
        with self._errors_that_teach():
            for row in self._database.execute(f"{_SELECT_CANDIDATES} ORDER BY position"):
                yield Candidate(*row)

    def _lock(self) -> None:
        """Take the file for this process until it closes it or dies, so that two live runs never share a store."""
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute("COMMIT")

    def _create_or_check(self) -> None:
        made = dict(self._database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
        if not made:
            self._create()
        elif not made.keys() >= {"meta", "candidate", "score"}:
            raise RunError(f"{self.path} {_NOT_A_STORE}: it is a database of another program.")
        meta = dict(self._database.execute("SELECT name, value FROM meta"))
        version, is_ours = meta.get("schema_version"), meta.get("schema_version") == str(SCHEMA_VERSION)
        if (is_ours or "checksum" in meta) and meta != _meta(version, meta.get("fingerprint")):
            raise _DamagedError(self.path, "what it says of its run is not what was written")
        if not is_ours:
            raise RunError(
                f"{self.path} has schema version {version}, this program writes {SCHEMA_VERSION}; "
                "continue the run with the version that began it, or choose another --out."
            )
        self._check_fingerprint(json.loads(meta["fingerprint"]), json.loads(self._fingerprint))
        if made and sorted(made.values()) != sorted(_TABLES):
            raise _DamagedError(self.path, "its tables are other ones")
        self._check_rows()

    def _create(self) -> None:
        with self._transaction():
            for statement in _TABLES:
                self._database.execute(statement)
            rows = _meta(str(SCHEMA_VERSION), self._fingerprint)
            self._database.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())

    def _check_rows(self) -> None:
        """Look at every page and every row, which takes seconds for a million rows."""
        (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise _DamagedError(self.path, found)
        for table in ("candidate", "score"):
            for *row, checksum in self._database.execute(f"SELECT * FROM {table}"):  # noqa: S608 - our own names
                if checksum != self._checksum(table, row):
                    raise _DamagedError(self.path, f"a row of the table {table} is not what was written")

    def _checksum(self, table: str, row: Iterable[Value]) -> int:
        """Checksum of a row of this run."""
        return zlib.crc32(json_text([table, *row]).encode(), zlib.crc32(self._fingerprint.encode()))

    def _rebuild(self, fingerprint: Mapping[str, object], damage: str) -> str:
        """Put what is sound into a new file in the place of the damaged one, which is kept beside it.

        Returns:
            What was done, in words.
        """
        damaged, rebuilt = (self.path.with_name(f"{self.path.name}.{word}") for word in ("damaged", "rebuilt"))
        with self._errors_that_teach():
            left = [self._sound(record) for path in (damaged, self.path) for record in records(path)]
            scores = {(each.key, each.repeat, each.scorer): each for each in left if isinstance(each, Score)}
            candidates = {each.position: each for each in left if isinstance(each, Candidate)}
            if not scores and not candidates:
                raise RunError(f"{self.path} {_NOT_A_STORE} ({damage}).")
            for path in (rebuilt, _log(rebuilt)):
                path.unlink(missing_ok=True)
            with ScoreStore(rebuilt, fingerprint) as store:
                store.put(scores.values())
                store.add_candidates(candidates.values())
            shutil.copyfile(self.path, damaged)
            if _log(self.path).exists():
                os.replace(_log(self.path), _log(damaged))
            os.replace(rebuilt, self.path)
        return (
            f"{self.path} was damaged ({damage}). {len(scores):,} scores and {len(candidates):,} "
            f"architectures in it are sound and were kept; the rest is scored again. It is kept as {damaged.name}."
        )

    def _sound(self, record: Record) -> Score | Candidate | None:
        """What a record is, if its checksum is right."""
        number, columns = record
        *row, checksum = columns or (None,)
        try:
            if number is None and checksum == self._checksum("score", [*row[:-1], float(row[-1])]):  # type: ignore[arg-type]
                return _score((*row[:-1], float(row[-1])))  # type: ignore[arg-type]  # as its checksum says
            if number is not None and checksum == self._checksum("candidate", [number, *row[1:]]):
                return Candidate(number, *row[1:])  # type: ignore[arg-type]  # as its checksum says
        except (TypeError, ValueError, LookupError):
            return None
        return None

    def _check_fingerprint(self, there: dict[str, object], here: dict[str, object]) -> None:
        differences = [
            f"{name} is {_shown(there, name)} there and {_shown(here, name)} here"
            for name in sorted(there.keys() | here.keys())
            if _shown(there, name) != _shown(here, name)
        ]
        if differences:
            raise RunError(
                f"{self.path} holds another run: {'; '.join(differences)}. "
                f"Choose another --out, or delete {self.path.parent} to start afresh."
            )

    def _insert_score(self, score: Score) -> None:
        values = json_text({name: float(value) for name, value in score.values.items()})
        row = (score.key, score.repeat, score.scorer, values, score.status, score.reason, float(score.seconds))
        try:
            self._database.execute(
                "INSERT INTO score VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, self._checksum("score", row))
            )
        except sqlite3.IntegrityError as error:
            raise RunError(
                f"key {score.key!r} already has a score of {score.scorer!r} in repeat {score.repeat}; "
                "a key is scored once: ask missing() first."
            ) from error

    def _insert_candidate(self, candidate: Candidate) -> None:
        statement = "INSERT INTO candidate VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (position) DO NOTHING"
        row = (*astuple(candidate)[:-1], int(candidate.is_genotype))
        if self._database.execute(statement, (*row, self._checksum("candidate", row))).rowcount:
            return
        query = f"{_SELECT_CANDIDATES} WHERE position = ?"
        there = Candidate(*self._database.execute(query, (candidate.position,)).fetchone())
        if there != candidate:
            raise RunError(
                f"{self.path} has {there.arch} as candidate {there.position}, this search asks {candidate.arch}: "
                "it was begun by another version or search space. Choose another --out."
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors_that_teach(), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def _errors_that_teach(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            cause = _ADVICE[sqlite3.SQLITE_FULL] if error.errno in _NO_SPACE else _NOT_WRITABLE
            raise RunError(f"{self.path} {cause} ({error.strerror}).") from error
        except UnicodeDecodeError as error:
            raise _DamagedError(self.path, error) from error
        except sqlite3.Error as error:
            advice = _ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
            if advice is None:
                raise _DamagedError(self.path, error) from error
            raise RunError(f"{self.path} {advice} (SQLite: {error}).") from error


def _meta(version: object, fingerprint: object) -> dict[str, object]:
    """The rows of the table ``meta``."""
    checksum = zlib.crc32(f"{version} {fingerprint}".encode())
    return {"schema_version": version, "fingerprint": fingerprint, "checksum": str(checksum)}


def _log(path: Path) -> Path:
    """Where SQLite writes first."""
    return path.with_name(f"{path.name}-wal")


def _score(row: tuple[str, int, str, str, str, str, float]) -> Score:
    key, repeat, scorer, values, status, reason, seconds = row
    metrics = {name: float(value) for name, value in json.loads(values).items()}
    return Score(key, repeat, scorer, metrics, status, reason, seconds)


def _shown(fingerprint: dict[str, object], name: str) -> str:
    return json.dumps(fingerprint[name], sort_keys=True) if name in fingerprint else "absent"
