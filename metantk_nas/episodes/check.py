"""What a data set holds and which episodes it can give, said before hours are spent on it."""

import hashlib
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metantk_nas.episodes.dataset import FewShotDataset, SkippedImage
from metantk_nas.episodes.decode import ImageFacts, describe_image
from metantk_nas.episodes.episode import EpisodeSampler
from metantk_nas.episodes.load import find_dataset
from metantk_nas.episodes.originals import Originals, load_originals
from metantk_nas.episodes.request import LoadRequest, Progress
from metantk_nas.errors import DataError

UNEQUAL = 3  # times as many images in one class as in another that deserve a note
N_NAMES = 5  # as many are named in a note

RANKING, TRAINING, CHOOSING, JUDGING = "rank", "train", "choose weights", "judge"


@dataclass(frozen=True)
class Use:
    """What episodes of a split are drawn for.

    Args:
        purpose: in words, ``"train"``.
        n_needed: images that a class must have.
        n_classes: classes that have them.
        left_out: the other classes, which are never drawn for this.
        reason: why the episodes cannot be drawn; empty where they can.
    """

    purpose: str
    n_needed: int
    n_classes: int
    left_out: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class SplitFacts:
    """One split as it can be used.

    Args:
        name: ``"base"``, ``"validation"`` or ``"novel"``.
        n_classes: its classes.
        n_images: its readable images.
        fewest: images of its smallest class; 0 where there is no class.
        median: images of its median class.
        most: images of its largest class.
        smallest_class: name of its smallest class.
        uses: what its episodes are drawn for.
    """

    name: str
    n_classes: int
    n_images: int
    fewest: int
    median: float
    most: int
    smallest_class: str
    uses: tuple[Use, ...]


@dataclass(frozen=True)
class FileFacts:
    """The readable image files of all splits together, as they were found.

    Args:
        smallest: width and height in pixels of the image with the fewest pixels.
        median: of the median image.
        largest: of the image with the most pixels.
        n_sizes: how many different widths and heights there are.
        n_grey: images without colour.
        n_colour: images with colour.
        n_alpha: images with transparency.
        n_sixteen_bit: images with 16 bits a channel.
        n_rotated: images that EXIF says do not lie upright.
        n_several: files that hold several pictures.
        n_enlarged: images smaller than the size asked for.
    """

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    n_sizes: int
    n_grey: int
    n_colour: int
    n_alpha: int
    n_sixteen_bit: int
    n_rotated: int
    n_several: int
    n_enlarged: int


@dataclass(frozen=True)
class Duplicates:
    """Files with equal bytes.

    Args:
        within_class: files that are there once more in their class.
        between_classes: contents that are in two classes of one split.
        between_splits: contents that are in two splits.
        examples: of each of these, by its name, the names of some files with equal bytes.
    """

    within_class: int
    between_classes: int
    between_splits: int
    examples: Mapping[str, tuple[tuple[str, ...], ...]]


@dataclass(frozen=True)
class DatasetCheck:
    """All that was seen of a data set.

    Args:
        name: name of the data set.
        image_size: height and width that its images are brought to.
        n_channels: 1 or 3.
        splits: base, validation and novel classes.
        files: its image files; ``None`` where it is drawn.
        duplicates: its files with equal bytes.
        skipped: files that could not be read or belong to no class.
        passed_over: files that are no images by their names, by how these end.
        notes: what deserves attention, one sentence each.
        reason: why it cannot even be ranked on; empty where it can.
    """

    name: str
    image_size: int
    n_channels: int
    splits: tuple[SplitFacts, ...]
    files: FileFacts | None
    duplicates: Duplicates
    skipped: tuple[SkippedImage, ...]
    passed_over: Mapping[str, int]
    notes: tuple[str, ...]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``usable`` says whether there is no reason against it."""
        return {"usable": not self.reason, **asdict(self)}


@dataclass(frozen=True)
class _Seen:
    """One image file: where it belongs, what it is, and a hash of its bytes."""

    split: str
    label: str
    name: str
    facts: ImageFacts
    digest: bytes


def check_dataset(
    name_or_path: str,
    *,
    image_size: int = 32,
    n_way: int = 5,
    n_shot: int = 1,
    n_query: int = 1,
    train_query: int = 5,
    eval_query: int = 15,
    data_root: Path | None = None,
    cache_dir: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> DatasetCheck:
    """Load a data set, look at every file of it, and say what is there.

    The decoded images stay in the cache, so that a search with this image size starts at once.

    Args:
        name_or_path: as for :func:`~metantk_nas.episodes.load.load_dataset`, as are all that are not named here.
        image_size: height and width of the images, in pixels.
        n_way: classes per episode.
        n_shot: support images per class.
        n_query: query images per class, to rank.
        train_query: query images per class, to train.
        eval_query: query images per class, to judge.
        data_root: where the originals are.
        cache_dir: where decoded images are kept.
        seed: splits folders by class.
        progress: told how far the work is.
        options: options of that data set.

    Raises:
        DataError: it cannot be loaded at all.
    """
    request = LoadRequest(image_size, data_root, cache_dir, seed, progress=progress)
    found, request = find_dataset(name_or_path, request, **options)
    dataset = load_originals(found, request) if isinstance(found, Originals) else found
    seen = list(_look(found, dataset.skipped, request)) if isinstance(found, Originals) else []
    needs = {
        "base": {RANKING: n_query, TRAINING: train_query},
        "validation": {CHOOSING: train_query},
        "novel": {JUDGING: eval_query},
    }
    splits = tuple(_split_facts(dataset, name, n_way, n_shot, queries) for name, queries in needs.items())
    files = _file_facts([each.facts for each in seen], image_size) if seen else None
    duplicates = _duplicates(seen)
    passed_over = found.passed_over if isinstance(found, Originals) else {}
    return DatasetCheck(
        name=dataset.name,
        image_size=dataset.image_size,
        n_channels=dataset.n_channels,
        splits=splits,
        files=files,
        duplicates=duplicates,
        skipped=dataset.skipped,
        passed_over=passed_over,
        notes=tuple(_notes(splits, files, duplicates, passed_over)),
        reason=splits[0].uses[0].reason,
    )


def left_out_note(split: str, classes: Sequence[str], n_needed: int, purpose: str) -> str:
    """Say which classes of a split have too few images to be drawn for a purpose."""
    names = ", ".join(map(repr, classes[:N_NAMES])) + (", …" if len(classes) > N_NAMES else "")
    few = _counted(len(classes), f"{split} class lacks", f"{split} classes lack")
    return f"{few} the {n_needed} images needed to {purpose}, so never drawn for it: {names}."


def _look(originals: Originals, skipped: Sequence[SkippedImage], request: LoadRequest) -> Iterator[_Seen]:
    """Yield what every readable file is."""
    unreadable = {each.path for each in skipped}
    total = sum(len(names) for classes in originals.files.values() for names in classes.values())
    done = 0
    for split, classes in originals.files.items():
        for label, names in classes.items():
            for name in names:
                done += 1
                request.report("looking at the files", done, total)
                if name not in unreadable:
                    content = originals.source.read(name)
                    digest = hashlib.blake2b(content, digest_size=16).digest()
                    yield _Seen(split, label, name, describe_image(content), digest)


def _split_facts(dataset: FewShotDataset, name: str, n_way: int, n_shot: int, queries: Mapping[str, int]) -> SplitFacts:
    """Describe a split; ``queries`` are the query images per class by purpose."""
    split = dataset.split(name)
    counts = [len(images) for images in split.images] or [0]
    return SplitFacts(
        name=name,
        n_classes=len(split.classes),
        n_images=split.n_images,
        fewest=min(counts),
        median=float(statistics.median(counts)),
        most=max(counts),
        smallest_class=split.classes[counts.index(min(counts))] if split.classes else "",
        uses=tuple(
            _use(dataset, name, purpose, n_way=n_way, n_shot=n_shot, n_query=n_query)
            for purpose, n_query in queries.items()
        ),
    )


def _use(dataset: FewShotDataset, name: str, purpose: str, *, n_way: int, n_shot: int, n_query: int) -> Use:
    """Say whether a split's episodes can be drawn, and of which classes."""
    split, needed, reason = dataset.split(name), n_shot + n_query, ""
    try:
        EpisodeSampler(dataset, name, n_way=n_way, n_shot=n_shot, n_query=n_query, seed=0)
    except DataError as error:
        reason = str(error)
    left_out = split.smaller_than(needed)
    return Use(purpose, needed, len(split.classes) - len(left_out), left_out, reason)


def _file_facts(facts: Sequence[ImageFacts], image_size: int) -> FileFacts:
    sizes = sorted(((each.width, each.height) for each in facts), key=lambda size: (size[0] * size[1], size))
    n_grey = sum(each.grey for each in facts)
    return FileFacts(
        smallest=sizes[0],
        median=sizes[len(sizes) // 2],
        largest=sizes[-1],
        n_sizes=len(set(sizes)),
        n_grey=n_grey,
        n_colour=len(facts) - n_grey,
        n_alpha=sum(each.alpha for each in facts),
        n_sixteen_bit=sum(each.sixteen_bit for each in facts),
        n_rotated=sum(each.rotated for each in facts),
        n_several=sum(each.several for each in facts),
        n_enlarged=sum(min(size) < image_size for size in sizes),
    )


def _duplicates(seen: Sequence[_Seen], n_examples: int = 5) -> Duplicates:
    by_digest: Mapping[bytes, list[_Seen]] = defaultdict(list)
    for each in seen:
        by_digest[each.digest].append(each)
    kinds: dict[str, list[tuple[str, ...]]] = {"within_class": [], "between_classes": [], "between_splits": []}
    n_again = 0
    for group in by_digest.values():
        homes = {(each.split, each.label) for each in group}
        n_splits = len({each.split for each in group})
        n_again += len(group) - len(homes)
        found = {"within_class": len(group) > len(homes), "between_classes": len(homes) > n_splits}
        for kind, is_so in (found | {"between_splits": n_splits > 1}).items():
            if is_so:
                kinds[kind].append(tuple(each.name for each in group))
    return Duplicates(
        within_class=n_again,
        between_classes=len(kinds["between_classes"]),
        between_splits=len(kinds["between_splits"]),
        examples={kind: tuple(groups[:n_examples]) for kind, groups in kinds.items()},
    )


def _notes(
    splits: Sequence[SplitFacts], files: FileFacts | None, duplicates: Duplicates, passed_over: Mapping[str, int]
) -> Iterator[str]:
    """Yield what deserves attention, one sentence each, the gravest first."""
    yield from _duplicate_notes(duplicates)
    for split in splits:
        yield from _use_notes(split)
    for split in splits:
        if split.n_classes and split.most >= UNEQUAL * split.fewest:
            yield (
                f"{split.name} classes have {split.fewest:,} to {split.most:,} images (fewest: "
                f"{split.smallest_class!r}); episodes draw all classes equally often."
            )
    if passed_over:
        ends = ", ".join(f"{n:,} {end}" for end, n in sorted(passed_over.items(), key=lambda item: (-item[1], item[0])))
        yield f"{_counted(sum(passed_over.values()), 'other file is', 'other files are')} no image by name: {ends}."
    if files is not None:
        yield from _file_notes(files)


def _duplicate_notes(duplicates: Duplicates) -> Iterator[str]:
    told = {
        "between_splits": "in two splits, so accuracies on novel classes would flatter",
        "between_classes": "in two classes of one split: one of the labels is wrong",
        "within_class": "there once more in their class",
    }
    for kind, what in told.items():
        if n := getattr(duplicates, kind):
            yield f"{_counted(n, 'image is', 'images are')} {what}; first: {' = '.join(duplicates.examples[kind][0])}."


def _use_notes(split: SplitFacts) -> Iterator[str]:
    for use in split.uses:
        if use.reason and use.purpose != RANKING:
            yield f"architectures can be ranked, but not to {use.purpose} on {split.name} classes: {use.reason}"
        elif use.left_out and not use.reason:
            yield left_out_note(split.name, use.left_out, use.n_needed, use.purpose)


def _file_notes(files: FileFacts) -> Iterator[str]:
    told = (
        (files.n_grey if files.n_colour else 0, "without colour: they get three equal channels"),
        (files.n_alpha, "with transparency: it becomes white"),
        (files.n_sixteen_bit, "of 16 bits a channel: they become 8"),
        (files.n_rotated, "turned or mirrored by EXIF orientation: they are put upright"),
        (files.n_several, "of several pictures (animations, pages): the first is taken"),
        (files.n_enlarged, "smaller than the size asked for: they are enlarged"),
    )
    for n, what in told:
        if n:
            yield f"{_counted(n, 'image')} {what}."
    if files.n_sizes > 1:
        smallest, median, largest = (
            f"{width}x{height}" for width, height in (files.smallest, files.median, files.largest)
        )
        yield (
            f"{files.n_sizes:,} sizes, from {smallest} over {median} (median) to {largest}: the largest centred square "
            "of each image is kept and resized."
        )


def _counted(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"
