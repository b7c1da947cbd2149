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

SPLITS = ("base", "validation", "novel")
UNEQUAL = 3  # times as many images in one class as in another that deserve a note


@dataclass(frozen=True)
class SplitFacts:
    """One split as it can be used.

    Args:
        name: ``"base"``, ``"validation"`` or ``"novel"``.
        n_classes: its classes, which bound ``n_way``.
        n_images: its readable images.
        fewest: images of its smallest class, which bound ``n_shot + n_query``; 0 where there is no class.
        median: images of its median class.
        most: images of its largest class.
        smallest_class: name of its smallest class.
        reason: why the episodes asked for cannot be drawn; empty where they can.
    """

    name: str
    n_classes: int
    n_images: int
    fewest: int
    median: float
    most: int
    smallest_class: str
    reason: str


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
    n_enlarged: int


@dataclass(frozen=True)
class Duplicates:
    """Files with equal bytes.

    Args:
        within_class: files that are there once more in their class.
        between_classes: contents that are in two classes of one split.
        between_splits: contents that are in two splits.
        examples: names of such files, those between splits first.
    """

    within_class: int
    between_classes: int
    between_splits: int
    examples: tuple[tuple[str, ...], ...]


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
        notes: what deserves attention, one sentence each.
        reason: why it cannot be used for the episodes asked for; empty where it can.
    """

    name: str
    image_size: int
    n_channels: int
    splits: tuple[SplitFacts, ...]
    files: FileFacts | None
    duplicates: Duplicates
    skipped: tuple[SkippedImage, ...]
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
        n_query: query images per class.
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
    splits = tuple(_split_facts(dataset, split, n_way, n_shot, n_query) for split in SPLITS)
    files = _file_facts([each.facts for each in seen], image_size) if seen else None
    duplicates = _duplicates(seen)
    return DatasetCheck(
        name=dataset.name,
        image_size=dataset.image_size,
        n_channels=dataset.n_channels,
        splits=splits,
        files=files,
        duplicates=duplicates,
        skipped=dataset.skipped,
        notes=tuple(_notes(splits, files, duplicates, dataset.skipped)),
        reason=splits[0].reason,
    )


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


def _split_facts(dataset: FewShotDataset, name: str, n_way: int, n_shot: int, n_query: int) -> SplitFacts:
    split = dataset.split(name)
    counts = [len(images) for images in split.images] or [0]
    try:
        EpisodeSampler(dataset, name, n_way=n_way, n_shot=n_shot, n_query=n_query, seed=0)
        reason = ""
    except DataError as error:
        reason = str(error)
    return SplitFacts(
        name=name,
        n_classes=len(split.classes),
        n_images=split.n_images,
        fewest=min(counts),
        median=float(statistics.median(counts)),
        most=max(counts),
        smallest_class=split.classes[counts.index(min(counts))] if split.classes else "",
        reason=reason,
    )


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
        n_enlarged=sum(min(size) < image_size for size in sizes),
    )


def _duplicates(seen: Sequence[_Seen], n_examples: int = 5) -> Duplicates:
    by_digest: Mapping[bytes, list[_Seen]] = defaultdict(list)
    for each in seen:
        by_digest[each.digest].append(each)
    groups = [group for group in by_digest.values() if len(group) > 1]
    homes = [{(each.split, each.label) for each in group} for group in groups]
    n_splits = [len({split for split, _ in home}) for home in homes]
    groups_by_weight = sorted(zip(n_splits, groups, strict=True), key=lambda pair: -pair[0])
    return Duplicates(
        within_class=sum(len(group) - len(home) for group, home in zip(groups, homes, strict=True)),
        between_classes=sum(len(home) > splits for home, splits in zip(homes, n_splits, strict=True)),
        between_splits=sum(splits > 1 for splits in n_splits),
        examples=tuple(tuple(each.name for each in group) for _, group in groups_by_weight[:n_examples]),
    )


def _notes(
    splits: Sequence[SplitFacts], files: FileFacts | None, duplicates: Duplicates, skipped: Sequence[SkippedImage]
) -> Iterator[str]:
    """Yield what deserves attention, one sentence each, the gravest first."""
    if duplicates.between_splits:
        yield (
            f"{duplicates.between_splits:,} images are in two splits, so accuracies on novel classes would flatter; "
            f"first: {' = '.join(duplicates.examples[0])}."
        )
    if duplicates.between_classes:
        yield f"{duplicates.between_classes:,} images are in two classes of one split: one of the labels is wrong."
    if duplicates.within_class:
        yield f"{duplicates.within_class:,} images are there once more in their class."
    if skipped:
        yield f"{len(skipped):,} files are left out; first: {skipped[0].path} ({skipped[0].reason})."
    for split in splits[1:]:
        if split.reason:
            yield f"architectures can be ranked, but not trained and judged on {split.name} classes: {split.reason}"
    for split in splits:
        if split.n_classes and split.most >= UNEQUAL * split.fewest:
            yield (
                f"{split.name} classes have {split.fewest:,} to {split.most:,} images (fewest: "
                f"{split.smallest_class!r}); episodes draw all classes equally often."
            )
    if files is not None:
        yield from _file_notes(files)


def _file_notes(files: FileFacts) -> Iterator[str]:
    if files.n_grey and files.n_colour:
        yield f"{files.n_grey:,} images are grey and {files.n_colour:,} have colour: all become colour."
    if files.n_alpha:
        yield f"{files.n_alpha:,} images have transparency: it becomes white."
    if files.n_sixteen_bit:
        yield f"{files.n_sixteen_bit:,} images have 16 bits a channel: they become 8."
    if files.n_rotated:
        yield f"{files.n_rotated:,} images lie on their side by their EXIF orientation: they are turned upright."
    if files.n_enlarged:
        yield f"{files.n_enlarged:,} images are smaller than the size asked for: they are enlarged."
    if files.n_sizes > 1:
        yield f"there are {files.n_sizes:,} image sizes: the largest centred square of each is kept and resized."
