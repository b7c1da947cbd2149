"""Every reader of the package as one function of bytes, and valid files of each kind, made here.

A reader returns where the bytes are what they should be, and raises an error of the package where they are not.
"""

import bz2
import io
import pickle
import random
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from zlib import crc32

import numpy as np
import torch
import typer
from PIL import Image

from metantk_nas.bench.build import read_table
from metantk_nas.bench.official import official_table
from metantk_nas.bench.truth import read_truth
from metantk_nas.cli import runs
from metantk_nas.cli.given import read_archs, read_settings
from metantk_nas.cli.options import _parse_count
from metantk_nas.cli.run_file import read_run_file, settings_of
from metantk_nas.episodes.cache import load_classes
from metantk_nas.episodes.cifar_fs import find_cifar_fs
from metantk_nas.episodes.decode import UNREADABLE, decode_image, describe_image
from metantk_nas.episodes.folder import find_folder
from metantk_nas.episodes.omniglot import find_omniglot
from metantk_nas.episodes.originals import Originals, load_originals
from metantk_nas.episodes.pickled import find_fc100, find_mini_imagenet, find_tiered_imagenet
from metantk_nas.episodes.request import LoadRequest
from metantk_nas.episodes.source import RowSource
from metantk_nas.errors import DataError, UsageError
from metantk_nas.experiment.fidelity import Look, read_looks
from metantk_nas.experiment.memory import parse_memory
from metantk_nas.experiment.scoring import read_spec
from metantk_nas.experiment.spec import SearchSpec
from metantk_nas.export.record import read_genotype, record_text, to_record
from metantk_nas.export.subject import Subject
from metantk_nas.learners.checkpoint import CHECKPOINT_FILE, Checkpoint, CurvePoint, read_checkpoint, write_checkpoint
from metantk_nas.learners.registry import make_learner, make_train_settings
from metantk_nas.learners.saved import NetworkSpec, TrainedLearner, load_learner, save_learner
from metantk_nas.report.html import EVALUATION_COLUMNS, read_tables
from metantk_nas.report.trajectory import PRUNING_COLUMNS
from metantk_nas.results import Ranking, make_ranking, write_json
from metantk_nas.safe_pickle import BROKEN, safe_load, safe_load_arrays
from metantk_nas.scorers.registry import pareto_objectives, rank_rule
from metantk_nas.searchers.registry import make_settings
from metantk_nas.spaces.load import load_space
from metantk_nas.store import Candidate, ScoreStore
from metantk_nas.types import Score
from tests.episodes.images import class_files, encode, noise, write_zip
from tests.episodes.test_cifar_fs import small_cifar
from tests.episodes.test_omniglot import small_omniglot
from tests.networks.chunks import SPACES, small

IMAGE_SIZE = 8
T = TypeVar("T")


@dataclass(frozen=True)
class Reader:
    """What reads, and what it should be able to read.

    Args:
        read: from bytes, and a folder that is empty and its own, to nothing.
        make: makes valid files.
        examples: inputs in the test suite; the campaign takes more.
    """

    read: Callable[[bytes, Path], None]
    make: Callable[[Path], Sequence[bytes]]
    examples: int = 100

    @cache  # noqa: B019 - readers live as long as the program
    def seeds(self) -> tuple[bytes, ...]:
        """Valid files."""
        with TemporaryDirectory() as folder:
            return tuple(self.make(Path(folder)))


READERS: dict[str, Reader] = {}


def reader(
    make: Callable[[Path], Sequence[bytes]], examples: int = 100
) -> Callable[[Callable[[bytes, Path], None]], Callable[[bytes, Path], None]]:
    """Register a function as the reader of its name."""

    def register(read: Callable[[bytes, Path], None]) -> Callable[[bytes, Path], None]:
        READERS[read.__name__] = Reader(read, make, examples)
        return read

    return register


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _one_of(content: bytes, choices: Sequence[T]) -> T:
    """One of several ways to read, always the same for the same bytes: an input costs one reading."""
    return choices[crc32(content) % len(choices)]


def _kind(content: bytes, *marks: bytes) -> int:
    """Which of several kinds of file it looks like: the last whose mark is in it; any where there is none."""
    found = [place for place, mark in enumerate(marks) if mark and mark in content]
    return found[-1] if found else crc32(content) % len(marks)


def _put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _request(folder: Path) -> LoadRequest:
    return LoadRequest(IMAGE_SIZE, data_root=folder, cache_dir=folder / "cache", download=False)


def _files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]


# Texts


def _architectures(_: Path) -> list[bytes]:
    spaces = [load_space(name) for name in SPACES]
    texts = [space.format(space.sample(random.Random(seed))) for space in spaces for seed in range(3)]
    return [text.encode() for text in [*texts, *(space.subspace().text for space in spaces), "conv4", "mlp"]]


@reader(_architectures, 200)
def architecture(content: bytes, _: Path) -> None:
    """The text of an architecture, in every space; one that is read is written and read again."""
    text = _text(content)
    for name in SPACES:
        space = load_space(name)
        with suppress(UsageError):
            found = space.read(text)
            assert space.read(space.format(found)) == found
    load_space("darts").read(text)


@reader(_architectures)
def architecture_list(content: bytes, folder: Path) -> None:
    """A file with one architecture a line."""
    for text in read_archs([str(_put(folder, "archs.txt", content))])[:20]:
        load_space("nas_bench_201").parse(text)


def _space_files(_: Path) -> list[bytes]:
    return [Path("search_spaces", f"{name}.toml").resolve().read_bytes() for name in SPACES]


@reader(_space_files)
def search_space(content: bytes, folder: Path) -> None:
    """A search space as TOML."""
    space = load_space(_put(folder, "space.toml", content))
    space.format(space.sample(random.Random(0)))


SETTINGS = settings_of(runs.search)


def _run_files(_: Path) -> list[bytes]:
    return [
        b'space = "darts"\nn_way = 5\ninner_time = inf\nrotations = true\nmax_params = "2M"\nseed = 3\n',
        b'searcher = "evolution"\nsearcher_settings = { population = 8, generation = 4 }\nmetrics = ["naswot"]\n',
        b'data_root = "here"\nout = "there"\ninner_reg = 1e-3\nadaptation = "anil"\nmax_macs = 5_000\nbudget = 0x20\n',
    ]


@reader(_run_files)
def run_file(content: bytes, folder: Path) -> None:
    """A run file as TOML, as far as the words that it stands for."""
    words = read_run_file(_put(folder, "run.toml", content), SETTINGS)
    read_settings(words.get("searcher_settings", []), "--searcher-set population=32")


def _options(_: Path) -> list[bytes]:
    texts = ["inner_lr=0.4", "population=8", 'a=[1, {"b": null}]', "2M", "1.5GiB", "condition_number,trace", "auto"]
    return [text.encode() for text in [*texts, "params,score", "image_size=16,keep=0.25/repeats=1,keep=0.4"]]


@reader(_options, 200)
def option(content: bytes, _: Path) -> None:
    """The text of an option, taken for each of those that have a grammar."""
    text = _text(content)
    full = Look(image_size=32, init_channels=16, n_cells=5, repeats=3, keep=1.0)
    readings: list[Callable[[], object]] = [
        lambda: make_settings("evolution", read_settings([text], "--searcher-set population=32")),
        lambda: make_learner("maml", **read_settings([text], "--set inner_lr=0.4")),
        lambda: make_train_settings("maml", **read_settings([text], "--set inner_lr=0.4")),
        lambda: parse_memory(text),
        lambda: rank_rule(text),
        lambda: pareto_objectives(text),
        lambda: read_looks(text, full),
        lambda: SearchSpec(metrics=text, devices=text),
    ]
    for reading in readings:
        with suppress(UsageError):
            reading()
    with suppress(typer.BadParameter):
        _parse_count(text)


# Images and pickles


def _images(_: Path) -> list[bytes]:
    colour, grey = noise(12, 16, 3), noise(12, 16)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a bird"
    alpha = colour.convert("RGBA")
    alpha.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    return [
        encode(colour),
        encode(grey),
        encode(alpha),
        encode(deep),
        encode(colour.quantize(16), transparency=3),
        encode(colour, "JPEG", exif=exif),
        encode(grey, "JPEG", progressive=True),
        encode(colour.convert("CMYK"), "JPEG"),
        encode(colour.quantize(8), "GIF", save_all=True, append_images=[colour.quantize(4)]),
        encode(colour, "BMP"),
        encode(deep, "TIFF"),
        encode(colour, "TIFF", compression="tiff_lzw", exif=exif),
        encode(alpha, "WEBP"),
        encode(grey, "PPM"),
        encode(grey.convert("1"), "PNG"),
        encode(grey.convert("F"), "TIFF"),
    ]


@reader(_images, 200)
def image(content: bytes, _: Path) -> None:
    """An image file; those that cannot be decoded are left out, those that can be are described."""
    try:
        found = decode_image(content, IMAGE_SIZE)
    except UNREADABLE as error:
        raise DataError(f"{type(error).__name__}") from error
    assert found.shape in {(IMAGE_SIZE, IMAGE_SIZE, 1), (IMAGE_SIZE, IMAGE_SIZE, 3)}
    assert found.dtype == np.uint8
    facts = describe_image(content)
    assert min(facts.width, facts.height) > 0


PIXELS = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)


def _pickles(_: Path) -> list[bytes]:
    content = {"image_data": PIXELS, "class_dict": OrderedDict(n01=[0, 1], n02=np.array([2])), "set": {1, 2.5, None}}
    plain = {"a": [1, 2.5, "é", b"\xff", (True, None)], "b": OrderedDict(c={3}), "d": 2**80, "e": np.float64(0.5)}
    return [pickle.dumps(each, protocol) for each in (content, plain) for protocol in (0, 2, 4, 5)]


@reader(_pickles, 200)
def pickled(content: bytes, _: Path) -> None:
    """A pickle that somebody else made."""
    load = _one_of(content, [safe_load_arrays, partial(safe_load, most=1 << 28)])
    try:
        load(io.BytesIO(content))
    except BROKEN as error:
        raise DataError(f"{type(error).__name__}") from error


def _pickled_sets(_: Path) -> list[bytes]:
    labels, rows = np.array([0, 0, 1]), {"n01": [0, 1], "n02": np.array([2])}
    encoded = [np.frombuffer(encode(Image.fromarray(each)), np.uint8)[:, None] for each in PIXELS]
    stream = io.BytesIO()
    np.savez(stream, images=PIXELS)
    return [
        *(pickle.dumps({"image_data": PIXELS, "class_dict": rows}, protocol) for protocol in (2, 4)),
        *(pickle.dumps({"data": PIXELS, "labels": each}, 4) for each in (labels, labels.tolist())),
        pickle.dumps({"label_specific": labels.astype(np.int32), "label_specific_str": ["crane", "crane"]}, 2),
        pickle.dumps(encoded, 4),
        stream.getvalue(),
    ]


@reader(_pickled_sets)
def pickled_set(content: bytes, folder: Path) -> None:
    """Base classes of miniImageNet or FC100, labels or images of tieredImageNet."""
    by_rows, by_labels, _, plain, labels, images, _ = READERS["pickled_set"].seeds()
    mini = ("mini-imagenet-cache-train.pkl", "mini-imagenet-cache-val.pkl", "mini-imagenet-cache-test.pkl")
    fc100 = ("FC100_train.pickle", "FC100_val.pickle", "FC100_test.pickle")
    tiered = [f"{part}_{rest}" for part in ("train", "val", "test") for rest in ("labels.pkl", "images_png.pkl")]
    sets: list[tuple[Callable[[LoadRequest], Originals], Mapping[str, bytes]]] = [
        (find_mini_imagenet, dict(zip(mini, (content, by_rows, by_labels), strict=True))),
        (find_fc100, dict(zip(fc100, (content, plain, plain), strict=True))),
        (find_tiered_imagenet, {name: images if "png" in name else labels for name in tiered} | {tiered[0]: content}),
        (find_tiered_imagenet, {name: images if "png" in name else labels for name in tiered} | {tiered[1]: content}),
        (
            find_tiered_imagenet,
            {"train_images.npz": content, "train_labels.pkl": labels, **_rest(tiered, labels, images)},
        ),
    ]
    find, files = sets[_kind(content, b"image_data", b"labels", b"label_specific", b"PNG", b"PK")]
    for name, each in files.items():
        _put(folder, name, each)
    load_originals(find(_request(folder)), _request(folder))


def _rest(tiered: Sequence[str], labels: bytes, images: bytes) -> dict[str, bytes]:
    return {name: images if "png" in name else labels for name in tiered[2:]}


# Archives, benchmarks, models


def _archives(folder: Path) -> list[bytes]:
    tables = {f"images/{label}{i}.png": encode(noise(6, 6)) for label in "ab" for i in range(2)}
    table = "filename,label\n" + "".join(f"{name.removeprefix('images/')},{name[7]}\n" for name in tables)
    write_zip(folder / "folder.zip", class_files(5, 2))
    write_zip(folder / "lists.zip", {**class_files(3, 2), "base.txt": b"class00\nclass01\n", "novel.txt": b"class02\n"})
    write_zip(folder / "tables.zip", {**tables, "train.csv": table.encode()})
    write_zip(folder / "cifar100.zip", small_cifar())
    small_omniglot(folder)
    _tibetan()
    return _files(folder)


@reader(_archives)
def archive(content: bytes, folder: Path) -> None:
    """A zip archive, taken for a folder of classes, for CIFAR-FS and for half of Omniglot."""
    _put(folder / "folder", "own.zip", content)
    _put(folder / "cifar_fs", "cifar100.zip", content)
    for name in ("images_background.zip", "images_evaluation.zip"):
        _put(folder / "omniglot", name, content if name < "images_c" else _tibetan())
    finders = [(find_cifar_fs, ""), (find_omniglot, ""), (find_folder, "folder/own.zip")]
    find, place = finders[_kind(content, b"bertinetto", b"images_background", b"")]
    request = LoadRequest(IMAGE_SIZE, folder / place, folder / "cache", download=False)
    load_originals(find(request), request)


@cache
def _tibetan() -> bytes:
    with TemporaryDirectory() as folder:
        small_omniglot(Path(folder))
        return Path(folder, "omniglot", "images_evaluation.zip").read_bytes()


def _benchmark_files(folder: Path) -> list[bytes]:
    arch = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    curve = {f"{judged}@{epoch}": 9.5 for judged in ("ori-test", "x-test", "x-valid") for epoch in (11, 199)}
    found = {(data, 777): {"eval_acc1es": curve} for data in ("cifar10", "cifar10-valid", "cifar100")}
    info = {"12": {"arch_index": 0, "arch_str": arch, "all_results": found}}
    info |= {"200": {"arch_index": 0, "arch_str": arch, "all_results": found}}
    older = {"meta_archs": [arch], "arch2infos": {0: {"less": info["12"], "full": info["200"]}}}
    torch.save(older, folder / "new.pth")
    torch.save(older, folder / "old.pth", _use_new_zipfile_serialization=False)
    plain = [pickle.dumps(each, 4) for each in (info, {"meta_archs": [arch], "arch2infos": {0: info}})]
    return [*plain, *map(bz2.compress, plain), *_files(folder)]


@reader(_benchmark_files)
def benchmark(content: bytes, folder: Path) -> None:
    """NAS-Bench-201 and NATS-Bench in their official files; what is not packed is packed: pickles are reached."""
    packed = content if content.startswith(b"BZh") else bz2.compress(content, 1)
    places = [
        ("tss/000000.pickle.pbz2", content),
        ("tss/000000.pickle.pbz2", packed),
        ("NATS-tss-v1_0-3ffb9.pickle.pbz2", packed),
        ("NAS-Bench-201-v1_1-096897.pth", content),
    ]
    torch_saved = content.startswith((b"PK", b"\x80\x02\x8a"))
    name, there = places[-1] if torch_saved else _one_of(content, places)
    path = _put(folder, name, there)
    official_table(path.parent if path.parent != folder else path, folder / "cache")


def _truths(_: Path) -> list[bytes]:
    arch = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    return [
        f"arch,accuracy,accuracy_ci,seed\n{arch},0.5,0.1,0\n{arch},0.7,,1\nconv4,0.9,0.1,0\n".encode(),
        b"key,accuracy_5shot,protocol\n0123456789abcdef0123,61.5,rfs\n00,nan,rfs\n",
        f'index,arch_str,cifar10_test200\n0,"{arch}",91.2\n'.encode(),
        f"position,key,seed,arch,macs,accuracy_1shot,accuracy_5shot\n0,00,0,{arch},5,0.1,0.2\n".encode(),
    ]


@reader(_truths, 60)
def truth(content: bytes, folder: Path) -> None:
    """A table of accuracies, of a user or of our own bench."""
    path = _put(folder, "table.csv", content)
    with suppress(UsageError):
        read_table(folder)
    read_truth(path, load_space("nas_bench_201"), cache_dir=folder / "cache").averaged()


def _learners(folder: Path) -> list[bytes]:
    for number, (name, kind) in enumerate((("nas_bench_201", "protonet"), ("darts_fewshot", "maml"))):
        space, learner = small(name), make_learner(kind)
        arch = space.format(space.sample(random.Random(number)))
        spec = NetworkSpec(arch, space, 5, 3, IMAGE_SIZE)
        model = learner.make_model(spec.build(learner.norm)).eval()
        save_learner(TrainedLearner(learner, model, spec, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1)), folder / f"{number}.pt")
    return _files(folder)


@reader(_learners, 40)
def learner(content: bytes, folder: Path) -> None:
    """A trained learner."""
    load_learner(_put(folder, "model.pt", content))


def _checkpoints(folder: Path) -> list[bytes]:
    point = CurvePoint(250, 1.5, 0.4, 0.45, float("nan"), 0.02, 12.5)
    state = {"weight": torch.zeros(2, 3), "bias": torch.ones(2)}
    write_checkpoint(folder, Checkpoint("run", state, {"state": {}, "param_groups": []}, state, [point]))
    return [(folder / CHECKPOINT_FILE).read_bytes()]


@reader(_checkpoints, 60)
def checkpoint(content: bytes, folder: Path) -> None:
    """A checkpoint of a training."""
    _put(folder, CHECKPOINT_FILE, content)
    read_checkpoint(folder, "run")


def _networks(_: Path) -> list[bytes]:
    found = []
    for name in SPACES:
        space = small(name)
        spec = NetworkSpec(space.format(space.sample(random.Random(0))), space, 5, 3, IMAGE_SIZE)
        found.append(record_text(to_record(Subject("net", spec, "batch", spec.build("batch")))).encode())
    return found


@reader(_networks)
def network_record(content: bytes, folder: Path) -> None:
    """A network that was exported as JSON."""
    read_genotype(_put(folder, "network.json", content))


# What a run leaves behind


FINGERPRINT = {"space": "nas_bench_201", "seed": 0}
CANDIDATES = [
    Candidate(i, f"|none~{i}|", f"key{i // 2:04d}", f"|none~{i}|", 1_000 + i, 9_000, i != 3) for i in range(16)
]
SCORES = [
    Score(f"key{i:04d}", repeat, "metantk", {"trace": i + repeat / 3, "x": float("nan")}, "ok", "é" * (900 * (i == 7)))
    for i in range(10)
    for repeat in range(2)
]


def _rankings(folder: Path) -> list[bytes]:
    ranking = make_ranking(CANDIDATES, SCORES, rank_rule("trace"), 0, objectives=pareto_objectives("params,score"))
    Ranking(ranking.frame.head(8)).save(folder / "ranking.csv")
    make_ranking(CANDIDATES[:4], SCORES, rank_rule("trace"), 0).save(folder / "small.csv")
    return _files(folder)


@reader(_rankings, 60)
def ranking(content: bytes, folder: Path) -> None:
    """The ranking of a run, and its other tables."""
    _put(folder, "ranking.csv", content)
    found = Ranking.load(folder / "ranking.csv")
    found.top(3)
    if "pareto" in found.frame.columns:
        found.front()
    read_tables(folder)


def _tables(_: Path) -> list[bytes]:
    READERS["ranking"].seeds()
    names = ",".join(EVALUATION_COLUMNS)
    return [f"{names}\n{'1,' * names.count(',')}0.5\n".encode(), b"episode,train_loss\n1,0.5\n", *_pruning_tables()]


def _pruning_tables() -> list[bytes]:
    return [(",".join(PRUNING_COLUMNS) + "\n1,normal,0,1,none,0.1,1,True\n").encode()]


@reader(_tables, 60)
def table(content: bytes, folder: Path) -> None:
    """What trainings and the pruning search leave beside the ranking."""
    _put(folder, "ranking.csv", READERS["ranking"].seeds()[0])
    _put(folder, _one_of(content, ["evaluation.csv", "curves/rank1.csv", "pruning.csv"]), content)
    read_tables(folder)


def _manifests(folder: Path) -> list[bytes]:
    spec = SearchSpec(space="nas_bench_201")
    write_json(folder / "manifest.json", {"spec": vars(spec), "seed": 0, "dataset": {"fingerprint": "00"}, "space": {}})
    return _files(folder)


@reader(_manifests)
def manifest(content: bytes, folder: Path) -> None:
    """The manifest of a run."""
    _put(folder, "manifest.json", content)
    read_spec(folder).load_space()


def _stores(folder: Path) -> list[bytes]:
    for name, n in (("small", 2), ("large", len(SCORES))):
        with ScoreStore(folder / name, FINGERPRINT) as store:
            store.add_candidates(CANDIDATES[:n])
            store.put(SCORES[:n])
    return _files(folder)


@reader(_stores, 60)
def score_store(content: bytes, folder: Path) -> None:
    """A score store: whatever happened to the file, no score comes out of it that was not put in."""
    with ScoreStore(_put(folder, "scores.sqlite", content), FINGERPRINT) as store:
        there = list(store.scores())
        assert {repr(each) for each in there} <= {repr(each) for each in SCORES}
        assert set(store.candidates()) <= set(CANDIDATES)
        left = {(each.key, each.repeat): each for each in SCORES}
        for each in there:
            del left[each.key, each.repeat]
        store.put(left.values())  # it can be written, too
        store.add_candidates(CANDIDATES)
        assert len(list(store.scores())) == len(SCORES)
    with closing(sqlite3.connect(folder / "scores.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@cache
def _drawings() -> tuple[bytes, ...]:
    return tuple(encode(noise(6, 6, seed=seed)) for seed in range(4))


def _cached(folder: Path) -> tuple[Path, Callable[[], Any]]:
    """The file in which decoded images are kept, and what reads it."""
    source = RowSource(folder / "images", {"rows": lambda row: _drawings()[row]}, "signature")
    request = LoadRequest(IMAGE_SIZE, cache_dir=folder / "cache")
    files = {"base/a": ["rows/0", "rows/1"], "novel/b": ["rows/2", "rows/3"]}

    def read() -> Any:
        return load_classes(source, files, "reading", request)

    return folder / "cache" / _cache_name(), read


@cache
def _cache_name() -> str:
    with TemporaryDirectory() as folder:
        source = RowSource(Path(folder) / "images", {"rows": lambda row: _drawings()[row]}, "signature")
        files = {"base/a": ["rows/0", "rows/1"], "novel/b": ["rows/2", "rows/3"]}
        load_classes(source, files, "reading", LoadRequest(IMAGE_SIZE, cache_dir=Path(folder)))
        return next(Path(folder).iterdir()).name


def _image_caches(folder: Path) -> list[bytes]:
    path, read = _cached(folder)  # which also remembers the name of the file
    read()
    stream = io.BytesIO()
    np.save(stream, PIXELS)
    return [path.read_bytes(), stream.getvalue()]


@reader(_image_caches)
def image_cache(content: bytes, folder: Path) -> None:
    """Decoded images that were kept: one that is damaged is made anew."""
    path, read = _cached(folder)
    _put(path.parent, path.name, content)
    bank = read()
    assert set(bank.images) == {"base/a", "novel/b"}
    for images in bank.images.values():
        assert images.dtype == np.uint8
        assert images.shape[1:] in {(IMAGE_SIZE, IMAGE_SIZE, 1), (IMAGE_SIZE, IMAGE_SIZE, 3)}
