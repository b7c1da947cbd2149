import errno
import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metantk_nas.errors import RunError, UsageError
from metantk_nas.store import Candidate, ScoreStore, json_text
from metantk_nas.types import Score

FINGERPRINT = {"space": "darts", "seed": 0, "inner_time": math.inf, "rank_by": ("condition_number", "trace")}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ScoreStore]:
    with ScoreStore(tmp_path / "scores.sqlite", FINGERPRINT) as store:
        yield store


def make_score(key: str = "a", repeat: int = 0, scorer: str = "metantk", **values: float) -> Score:
    return Score(key, repeat, scorer, values or {"trace": 1.5}, seconds=0.25)


def make_candidate(position: int, arch: str = "|none~0|") -> Candidate:
    return Candidate(position, arch, f"key{position}", arch, 129_306, 15_647_370)


def test_scores_come_back_ordered_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "run" / "scores.sqlite"
    failed = Score("b", 0, "metantk", {"trace": math.nan}, "not_finite", "the kernel has 3 NaN", 0.1)
    with ScoreStore(path, FINGERPRINT) as store:
        store.put([make_score("c"), make_score("a", 1), make_score("a", 0, "naswot"), make_score("a", 0)])
        store.put([failed])
    with ScoreStore(path, FINGERPRINT) as store:
        scores = list(store.scores())
    order = [(score.key, score.repeat, score.scorer) for score in scores]
    assert order == [
        ("a", 0, "metantk"),
        ("a", 0, "naswot"),
        ("a", 1, "metantk"),
        ("b", 0, "metantk"),
        ("c", 0, "metantk"),
    ]
    assert scores[0] == make_score("a")
    assert (scores[3].status, scores[3].reason, scores[3].seconds) == ("not_finite", "the kernel has 3 NaN", 0.1)
    assert math.isnan(scores[3].values["trace"])


@given(st.lists(st.floats(), max_size=8))
def test_every_float_comes_back_with_all_its_bits(numbers: list[float]) -> None:
    with ScoreStore(Path(":memory:"), {}) as store:
        store.put([Score("a", 0, "metantk", {f"metric{index}": number for index, number in enumerate(numbers)})])
        (score,) = store.scores()
    for index, number in enumerate(numbers):
        found = score.values[f"metric{index}"]
        assert (
            math.isnan(found)
            if math.isnan(number)
            else (found, math.copysign(1, found))
            == (
                number,
                math.copysign(1, number),
            )
        )


def test_json_is_standard_also_where_numbers_are_not_finite() -> None:
    assert json_text({"b": [math.inf, (-math.inf, math.nan)], "a": 0.1}) == '{"a": 0.1, "b": ["inf", ["-inf", "nan"]]}'


def test_scores_of_some_keys_are_those_alone(store: ScoreStore) -> None:
    store.put([make_score("a"), make_score("b", 1), make_score("b", 0), make_score("c")])
    assert [(score.key, score.repeat) for score in store.scores(["c", "b", "x", "b"])] == [("b", 0), ("b", 1), ("c", 0)]


def test_missing_keeps_the_order_and_drops_what_is_done_and_doubles(store: ScoreStore) -> None:
    store.put([make_score("a"), make_score("b", 1), make_score("c", 0, "naswot")])
    assert store.missing(["d", "c", "a", "b", "d"], 0, "metantk") == ["d", "c", "b"]
    assert store.missing(["d", "c", "a", "b"], 1, "metantk") == ["d", "c", "a"]
    assert store.missing(["a"], 0, "metantk") == []


def test_no_key_is_scored_twice_and_the_refused_transaction_leaves_nothing(store: ScoreStore) -> None:
    store.put([make_score("a")])
    with pytest.raises(RunError, match=r"key 'a' already has a score of 'metantk' in repeat 0"):
        store.put([make_score("b"), make_score("a")])
    assert [score.key for score in store.scores()] == ["a"]
    store.put([make_score("b")])


def test_a_transaction_fed_by_a_failing_generator_leaves_nothing(store: ScoreStore) -> None:
    def scores() -> Iterator[Score]:
        yield make_score("a")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.put(scores())
    assert list(store.scores()) == []


def test_candidates_come_back_in_order_and_may_be_added_again(store: ScoreStore) -> None:
    candidates = [make_candidate(position) for position in range(3)]
    store.add_candidates(candidates[1::-1])
    store.add_candidates(candidates)
    assert list(store.candidates()) == candidates


def test_another_candidate_in_the_same_place_is_refused(store: ScoreStore) -> None:
    store.add_candidates([make_candidate(0)])
    with pytest.raises(RunError, match=r"has \|none~0\| as candidate 0, this search asks \|skip_connect~0\|"):
        store.add_candidates([make_candidate(1), make_candidate(0, "|skip_connect~0|")])
    assert [candidate.position for candidate in store.candidates()] == [0]


def test_the_same_fingerprint_opens_again_whatever_the_order_of_its_fields(tmp_path: Path) -> None:
    ScoreStore(tmp_path / "scores.sqlite", FINGERPRINT).close()
    ScoreStore(tmp_path / "scores.sqlite", dict(reversed(FINGERPRINT.items()))).close()


def test_another_run_is_refused_with_every_differing_field_and_both_values(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    with ScoreStore(path, FINGERPRINT) as store:
        store.put([make_score()])
    other = {**FINGERPRINT, "seed": 1, "inner_time": 1.0, "data": "omniglot"}
    with pytest.raises(RunError, match="Choose another --out, or delete") as caught:
        ScoreStore(path, other)
    message = str(caught.value)
    assert 'data is absent there and "omniglot" here' in message
    assert 'inner_time is "inf" there and 1.0 here' in message
    assert "seed is 0 there and 1 here" in message
    assert "space is" not in message
    with ScoreStore(path, FINGERPRINT) as store:
        assert len(list(store.scores())) == 1


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    ScoreStore(path, FINGERPRINT).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET value = '2' WHERE name = 'schema_version'")
        database.execute("DELETE FROM meta WHERE name = 'checksum'")  # version 2 had none
    database.close()
    with pytest.raises(RunError, match="schema version 2, this program writes 3"):
        ScoreStore(path, FINGERPRINT)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    path.write_text("rank,arch\n" * 500)
    with pytest.raises(RunError, match="is not an intact score store; choose another --out"):
        ScoreStore(path, FINGERPRINT)
    assert path.read_text() == "rank,arch\n" * 500


def filled(path: Path, n: int = 2_000) -> list[Score]:
    """A store with many scores, some of which do not fit on a page, and a candidate."""
    scores = [make_score(f"key{index:04d}", trace=index / 7) for index in range(n)]
    scores[5] = Score("key0005", 0, "metantk", {"trace": 1.0}, "failed", "ü" * 6_000)
    with ScoreStore(path, FINGERPRINT) as store:
        store.put(scores)
        store.add_candidates([make_candidate(0), make_candidate(1)])
    return scores


def rebuilt(path: Path) -> tuple[list[Score], str]:
    """The scores that are left, and what was told; afterwards the store is sound."""
    told: list[str] = []
    with ScoreStore(path, FINGERPRINT, told.append) as store:
        left = list(store.scores())
    with ScoreStore(path, FINGERPRINT, pytest.fail) as store:
        assert list(store.scores()) == left
    assert (path.parent / "scores.sqlite.damaged").exists()
    (note,) = told
    assert f"{len(left):,} scores and" in note
    assert "the rest is scored again" in note
    return left, note


def test_a_truncated_store_is_made_anew_from_what_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    scores = filled(path)
    os.truncate(path, path.stat().st_size // 2)
    left, _ = rebuilt(path)
    assert 600 < len(left) < 1_200
    assert all(score in scores for score in left)
    with ScoreStore(path, FINGERPRINT) as store:
        lost = set(store.missing([score.key for score in scores], 0, "metantk"))
        store.put([score for score in scores if score.key in lost])
        assert list(store.scores()) == scores


@pytest.mark.parametrize("page", [0, 1, 2, 3, 4, 11])
def test_a_page_of_rubbish_costs_no_more_than_its_own_rows(tmp_path: Path, page: int) -> None:
    path = tmp_path / "scores.sqlite"
    scores = filled(path)
    with path.open("r+b") as file:
        file.seek(4_096 * page)
        file.write(random.Random(page).randbytes(4_096))
    left, _ = rebuilt(path)
    assert len(left) > len(scores) - 80
    assert all(score in scores for score in left)


def test_a_flipped_bit_never_passes_for_a_score(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    filled(path, 20)
    content = path.read_bytes()
    assert content.count(b'{"trace": 2.0}') == 1
    path.write_bytes(content.replace(b'{"trace": 2.0}', b'{"trace": 3.0}'))  # SQLite finds nothing wrong with it
    left, note = rebuilt(path)
    assert "a row of the table score is not what was written" in note
    assert "key0014" not in {score.key for score in left}
    assert len(left) == 19


def test_what_only_the_log_has_is_found_too(tmp_path: Path) -> None:
    filled(tmp_path / "live.sqlite")
    path = tmp_path / "copy" / "scores.sqlite"
    path.parent.mkdir()
    with ScoreStore(tmp_path / "live.sqlite", FINGERPRINT) as store:
        store.put([make_score(f"late{index}") for index in range(100)])
        path.with_name("scores.sqlite-wal").write_bytes((tmp_path / "live.sqlite-wal").read_bytes())
    content = (tmp_path / "live.sqlite").read_bytes()
    path.write_bytes(content[: 4_096 * 5] + random.Random(0).randbytes(4_096 * 5) + content[4_096 * 10 :])
    left, _ = rebuilt(path)
    assert len([score for score in left if score.key.startswith("late")]) == 100


def test_a_damaged_store_of_another_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    filled(path)
    os.truncate(path, path.stat().st_size // 2)
    content = path.read_bytes()
    with pytest.raises(RunError, match="is not an intact score store; choose another --out"):
        ScoreStore(path, {**FINGERPRINT, "seed": 1})
    assert path.read_bytes() == content


def test_a_full_disk_while_a_store_is_made_anew_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.sqlite"
    filled(path)
    os.truncate(path, path.stat().st_size // 2)
    content = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(RunError, match="no space is left; free some space"):
            ScoreStore(path, FINGERPRINT)
    assert path.read_bytes() == content
    assert len(rebuilt(path)[0]) > 600


def test_damage_that_shows_while_a_run_goes_on_is_mended_by_the_same_command(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    filled(path)
    with ScoreStore(path, FINGERPRINT) as store:
        store._database.execute("PRAGMA cache_size = 1")  # so that pages are read again
        with path.open("r+b") as file:
            file.seek(4_096 * 2)
            file.write(bytes(range(256)) * 16 * 20)
        with pytest.raises(RunError, match=r"is damaged .*; the same command goes on from what is sound in it"):
            list(store.scores())
    assert len(rebuilt(path)[0]) > 1_000


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE bookmarks (url TEXT)")
    database.close()
    with pytest.raises(RunError, match="a database of another program"):
        ScoreStore(path, FINGERPRINT)


@pytest.mark.parametrize("place", ["file/scores.sqlite", "directory"])
def test_a_place_that_cannot_hold_a_file_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    with pytest.raises(UsageError, match="cannot be opened for writing; check the path and its permissions"):
        ScoreStore(tmp_path / place, FINGERPRINT)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_write_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UsageError, match="cannot be opened for writing; check the path and its permissions"):
            ScoreStore(tmp_path / "scores.sqlite", FINGERPRINT)
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_keeps_what_was_committed_and_the_run_goes_on_later(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    with ScoreStore(path, FINGERPRINT) as store:
        store.put([make_score("early")])
        store._database.execute("PRAGMA max_page_count = 20")  # SQLite then fails as it does on a full disk
        with pytest.raises(UsageError, match="no space is left; free some space: what was committed before is kept"):
            store.put([make_score(f"late{index}") for index in range(5_000)])
        assert [score.key for score in store.scores()] == ["early"]
    with ScoreStore(path, FINGERPRINT) as store:
        store.put([make_score(f"late{index}") for index in range(5_000)])
        assert len(list(store.scores())) == 5_001


WRITER = """
import sys
from pathlib import Path
from metantk_nas.store import ScoreStore
from metantk_nas.types import Score

with ScoreStore(Path(sys.argv[1]), {"seed": 0}) as store:
    first = len({score.key.split("-")[0] for score in store.scores()})
    for chunk in range(first, 1_000_000):
        store.put(Score(f"{chunk:07d}-{member}", 0, "metantk", {"trace": chunk / 3}) for member in range(200))
        print(chunk, flush=True)
"""


def start_writer(path: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    )


def kill_and_read_last_chunk(writer: "subprocess.Popen[str]") -> int:
    writer.send_signal(signal.SIGKILL)
    output, _ = writer.communicate(timeout=60)
    return int(output.split()[-1])


def test_a_killed_writer_leaves_every_committed_chunk_whole_and_none_torn(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    delays = random.Random(0)
    for _ in range(4):
        writer = start_writer(path)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delays.uniform(0.05, 0.3))
        last = kill_and_read_last_chunk(writer)
        with ScoreStore(path, {"seed": 0}) as store:
            keys = [score.key for score in store.scores()]
        n_chunks = len(keys) // 200
        assert keys == [f"{chunk:07d}-{member}" for chunk in range(n_chunks) for member in sorted(map(str, range(200)))]
        assert n_chunks in (last + 1, last + 2)  # committed and reported, or killed between the two


def test_a_store_in_use_by_a_live_process_is_refused_and_free_after_its_death(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    writer = start_writer(path)
    assert writer.stdout is not None
    writer.stdout.readline()
    try:
        with pytest.raises(RunError, match="is in use by another live process; wait for it to end"):
            ScoreStore(path, {"seed": 0})
    finally:
        writer.kill()
        writer.communicate(timeout=60)
    with ScoreStore(path, {"seed": 0}) as store:
        assert store.missing(["0000000-0"], 0, "metantk") == []
