"""Thousands of inputs for every reader, guided by coverage: ``python -m tests.fuzz.campaign --inputs 10000``.

Atheris (libFuzzer for Python, the extra ``fuzz``) keeps the inputs that reach new code of this package and goes on
from them. It mutates bytes in its own way or as ``mutations`` do, half and half. Each reader has a process of its own,
and all of its findings are gathered instead of ending at the first; one input of each is written down with ``--keep``.

It stands here and not among the benchmarks because it shares readers, valid files and guard with the tests.
"""

import argparse
import json
import os
import random
import re
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

OUT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "fuzz.json"
MAX_LENGTH = 200_000
"""Bytes of an input."""
MEMORY_DISK = "/dev/shm"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="inputs for each reader")
    parser.add_argument("--reader", action="append", help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=OUT, help="where the table is written")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="readers at a time")
    parser.add_argument("--keep", type=Path, help="directory for one input of each finding")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if os.access(MEMORY_DISK, os.W_OK):  # no disk is worn out
        os.environ["TMPDIR"] = MEMORY_DISK
    readers = _instrumented_readers()
    rows = _written(options.json) if options.reader else {}
    with ThreadPoolExecutor(options.jobs) as pool:
        for row in pool.map(partial(_in_a_process, options), options.reader or readers):
            rows[row["reader"]] = row
            print(json.dumps(row), flush=True)
            ordered = [rows[name] for name in readers if name in rows]
            table = {"inputs": options.inputs, "seed": options.seed, "readers": ordered}
            options.json.write_text(json.dumps(table, indent=1) + "\n")
    sys.exit(any(row["findings"] for row in rows.values()))


def _instrumented_readers() -> dict[str, Any]:
    """The readers, with branches of this package counted."""
    try:
        import atheris
    except ImportError:
        sys.exit("the campaign needs atheris: pip install 'metantk-nas[fuzz]' (wheels exist for some Pythons only)")
    with atheris.instrument_imports(include=["metantk_nas"]):
        from tests.fuzz.readers import READERS
    return READERS


def _written(path: Path) -> dict[str, dict[str, Any]]:
    """Rows of an earlier campaign, by reader."""
    rows = json.loads(path.read_text())["readers"] if path.exists() else []
    return {row["reader"]: row for row in rows}


def _in_a_process(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Fuzz one reader in a process of its own, which libFuzzer ends as it pleases."""
    with TemporaryDirectory() as folder:
        child = os.fork()
        if child == 0:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)  # libFuzzer tells of every new branch
            fuzz(name, options, Path(folder))
        _, status = os.waitpid(child, 0)
        path = Path(folder, "row.json")
        if not path.exists():
            sys.exit(f"{name}: the process ended with status {status}, and the inputs were not done")
        row: dict[str, Any] = json.loads(path.read_text())
        return row


def fuzz(name: str, options: argparse.Namespace, folder: Path) -> None:
    """Fuzz one reader and write its row; the process ends here."""
    import atheris

    from tests.fuzz.guard import attempt
    from tests.fuzz.mutations import damaged, random_steps
    from tests.fuzz.readers import READERS

    reader, findings, facts = READERS[name], Counter[str](), Counter[str]()
    seeds, start, slowest = reader.seeds(), time.perf_counter(), 0.0
    place, corpus = folder / "place", folder / "corpus"
    for each in (place, corpus):
        each.mkdir()

    def one(content: bytes) -> None:
        nonlocal slowest
        began = time.process_time()
        try:
            facts["read"] += attempt(reader, content, place)
        except BaseException as error:
            title = _title(error)
            findings[title] += 1
            if options.keep is not None and findings[title] == 1:
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{name}-{len(findings)}").write_bytes(content)
                (options.keep / f"{name}-{len(findings)}.txt").write_text(traceback.format_exc())
        facts["inputs"] += 1
        slowest = max(slowest, time.process_time() - began)
        if facts["inputs"] >= options.inputs:
            row = _row(name, facts, findings, slowest, time.perf_counter() - start)
            (folder / "row.json").write_text(json.dumps(row))
            os._exit(0)

    def mutate(content: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return bytes(atheris.Mutate(content, max_size))
        return damaged(content, random_steps(rng), seeds)[:max_size]

    for number, content in enumerate(seeds):
        (corpus / f"{number:03d}").write_bytes(content)
    arguments = [f"-seed={options.seed + 1}", f"-max_len={MAX_LENGTH}", "-timeout=600", "-rss_limit_mb=0", str(corpus)]
    atheris.Setup([sys.argv[0], *arguments], one, custom_mutator=mutate)
    atheris.Fuzz()


def _title(error: BaseException) -> str:
    """What tells findings apart: the error and where in the package it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "metantk_nas" in frame.filename]
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    words = "" if frames else re.sub(r"[/\d]\S*", "…", f": {error}")[:80]
    return f"{type(error).__name__}{where}{words}"


def _row(name: str, facts: Counter[str], findings: Counter[str], slowest: float, seconds: float) -> dict[str, Any]:
    return {
        "reader": name,
        "inputs": facts["inputs"],
        "read": facts["read"],
        "refused": facts["inputs"] - facts["read"] - findings.total(),
        "findings": dict(findings),
        "slowest_cpu_seconds": round(slowest, 3),
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    main()
