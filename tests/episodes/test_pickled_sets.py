"""miniImageNet, tieredImageNet and FC100 from small files in the layouts that are passed around."""

import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metantk_nas.episodes import pickled
from metantk_nas.episodes.dataset import FewShotDataset, Images
from metantk_nas.episodes.load import find_dataset, load_dataset
from metantk_nas.episodes.request import LoadRequest
from metantk_nas.errors import DataError
from metantk_nas.rng import numpy_generator
from tests.contracts.dataset import SPLITS, DatasetContract
from tests.episodes.images import class_files, write_folder, write_zip

N_CLASSES = {"train": 4, "val": 3, "test": 3}
N_IMAGES = 6


def pixels(part: str, size: int = 10) -> Images:
    """Images of a part, class after class."""
    shape = (N_CLASSES[part] * N_IMAGES, size, size, 3)
    return numpy_generator(0, part).integers(0, 256, shape, dtype=np.uint8)


def rows(part: str) -> dict[str, list[int]]:
    """Rows by class, shuffled, so that they must be followed."""
    order = numpy_generator(1, part).permutation(N_CLASSES[part] * N_IMAGES).tolist()
    return {f"n{part}{label}": order[label :: N_CLASSES[part]] for label in range(N_CLASSES[part])}


def labels(part: str) -> list[int]:
    """One label a row, for the same classes as :func:`rows`."""
    places = {row: label for label, some in enumerate(rows(part).values()) for row in some}
    return [places[row] for row in range(len(places))]


def dump(path: Path, content: object, protocol: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def write_mini(folder: Path, *, validation: str = "val", protocol: int = 2) -> Path:
    """As Ren et al. and learn2learn lay it out."""
    for part in N_CLASSES:
        name = validation if part == "val" else part
        content = {"image_data": pixels(part), "class_dict": rows(part)}
        dump(folder / f"mini-imagenet-cache-{name}.pkl", content, protocol)
    return folder


def write_mini_by_labels(folder: Path) -> Path:
    """As Gidaris & Komodakis lay it out, with labels that go on from split to split."""
    for part, name, first in (("train", "train_phase_train", 0), ("val", "val", 64), ("test", "test", 80)):
        content = {"data": pixels(part), "labels": [first + label for label in labels(part)], "catname2label": {}}
        dump(folder / f"miniImageNet_category_split_{name}.pickle", content)
    dump(folder / "miniImageNet_category_split_train_phase_val.pickle", {"data": pixels("train"), "labels": []})
    return folder


def write_fc100(folder: Path) -> Path:
    for part in N_CLASSES:
        dump(folder / f"FC100_{part}.pickle", {"data": pixels(part), "labels": np.array(labels(part))}, 4)
    return folder


def as_png(image: Images) -> np.ndarray:
    """As ``cv2.imencode`` gives it: bytes as a column."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return np.frombuffer(stream.getvalue(), np.uint8)[:, None]


def write_tiered(folder: Path, form: str, prefix: str = "") -> Path:
    """As Ren et al. lay it out (PNG; or unpacked, blue first), and as MetaOptNet does (red first, plain labels)."""
    for part, n_classes in N_CLASSES.items():
        if form == "metaoptnet":
            content: dict[str, Any] = {"labels": labels(part)}
        else:
            names = ["crane"] * n_classes  # ImageNet has two classes of this name
            content = {"label_specific": np.array(labels(part), np.int32), "label_specific_str": names}
        dump(folder / f"{prefix}{part}_labels.pkl", content)
        if form == "png":
            dump(folder / f"{prefix}{part}_images_png.pkl", [as_png(image) for image in pixels(part)], 4)
        else:
            np.savez(
                folder / f"{prefix}{part}_images.npz", images=pixels(part)[..., :: 1 if form == "metaoptnet" else -1]
            )
    return folder


def assert_as_made(dataset: FewShotDataset) -> None:
    """Every class has exactly its images, in order."""
    for part, split in zip(N_CLASSES, map(dataset.split, SPLITS), strict=True):
        for found, some in zip(split.images, rows(part).values(), strict=True):
            np.testing.assert_array_equal(found, pixels(part)[some])


def in_row_order(dataset: FewShotDataset) -> None:
    """The same where classes come from labels, so that their images follow the rows."""
    for part, split in zip(N_CLASSES, map(dataset.split, SPLITS), strict=True):
        assert len(split.classes) == N_CLASSES[part]
        by_first = sorted(map(sorted, rows(part).values()))
        for found, some in zip(split.images, by_first, strict=True):
            np.testing.assert_array_equal(found, pixels(part)[some])


class TestMiniImageNet(DatasetContract):
    n_channels = 3

    @pytest.fixture(scope="class")
    @classmethod
    def arguments(cls, tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> dict[str, Any]:
        root = tmp_path_factory.mktemp("mini")
        write_mini(root / "mini_imagenet")
        return {"name_or_path": "mini_imagenet", "image_size": 8, "data_root": root, "cache_dir": cache_dir}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("validation", ["val", "validation"])
@pytest.mark.parametrize("where", ["", "mini_imagenet", "mini-imagenet"])
def test_mini_imagenet_is_read_wherever_and_however_it_lies(
    tmp_path: Path, where: str, validation: str, protocol: int
) -> None:
    write_mini(tmp_path / where, validation=validation, protocol=protocol)
    dataset = load_dataset("mini_imagenet", image_size=10, data_root=tmp_path)
    assert dataset.name == "mini_imagenet"
    assert dataset.novel.classes == ("ntest0", "ntest1", "ntest2")
    assert_as_made(dataset)


def test_mini_imagenet_by_labels_leaves_further_images_of_base_classes_alone(tmp_path: Path) -> None:
    dataset = load_dataset("mini_imagenet", image_size=10, data_root=write_mini_by_labels(tmp_path))
    assert sorted(dataset.validation.classes) == ["validation64", "validation65", "validation66"]
    in_row_order(dataset)


@pytest.mark.parametrize("layout", ["directories", "tables", "tables beside split"])
def test_mini_imagenet_as_files(tmp_path: Path, layout: str) -> None:
    if layout == "directories":
        parts = [class_files(n, 2, prefix=f"{part}/n{part}", colour=True) for part, n in N_CLASSES.items()]
        files = {name: content for some in parts for name, content in some.items()}
    else:
        images = class_files(10, 2, prefix="n", colour=True)
        files = {f"images/{name.replace('/', '')}": content for name, content in images.items()}
        for part, wanted in (("train", range(4)), ("val", range(4, 7)), ("test", range(7, 10))):
            lines = [f"n{c:02d}image{i}.png,n{c:02d}" for c in wanted for i in range(2)]
            top = "split/" if "split" in layout else ""
            files[f"{top}{part}.csv"] = "\n".join(["filename,label", *lines]).encode()
    write_folder(tmp_path / "mini_imagenet", files)
    dataset = load_dataset("mini_imagenet", image_size=8, data_root=tmp_path)
    assert dataset.name == "mini_imagenet"
    assert [len(dataset.split(name).classes) for name in SPLITS] == [4, 3, 3]
    assert {len(images) for name in SPLITS for images in dataset.split(name).images} == {2}


def test_fc100_is_read_and_its_numbered_classes_are_told_apart(tmp_path: Path) -> None:
    write_fc100(tmp_path / "FC100")
    dataset = load_dataset("fc100", image_size=10, data_root=tmp_path)
    assert sorted(dataset.base.classes) == ["base0", "base1", "base2", "base3"]
    assert sorted(dataset.novel.classes) == ["novel0", "novel1", "novel2"]
    in_row_order(dataset)


@pytest.mark.parametrize("form", ["png", "authors' pixels", "metaoptnet"])
@pytest.mark.parametrize("prefix", ["", "tiered-imagenet-"])
def test_every_form_of_tiered_imagenet_has_the_same_images(tmp_path: Path, form: str, prefix: str) -> None:
    """Colours are red, green, blue in all: what OpenCV has unpacked is blue first."""
    folder = tmp_path / "tiered_imagenet"
    folder.mkdir()
    write_tiered(folder, form, prefix)
    dataset = load_dataset("tiered_imagenet", image_size=10, data_root=tmp_path)
    names = {"base0", "base1", "base2", "base3"} if form == "metaoptnet" else {f"base{i} crane" for i in range(4)}
    assert set(dataset.base.classes) == names
    in_row_order(dataset)


def test_images_of_tiered_imagenet_are_read_only_when_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = pickled.safe_load_arrays

    def spy(file: Any) -> Any:
        opened.append(Path(file.name).name)
        return real(file)

    monkeypatch.setattr(pickled, "safe_load_arrays", spy)
    write_tiered(tmp_path, "png")
    first = load_dataset("tiered_imagenet", image_size=8, data_root=tmp_path)
    images = [f"{part}_images_png.pkl" for part in N_CLASSES]
    assert [name for name in opened if "images" in name] == images, "each once"
    opened.clear()
    assert load_dataset("tiered_imagenet", image_size=8, data_root=tmp_path).fingerprint == first.fingerprint
    assert sorted(opened) == sorted(f"{part}_labels.pkl" for part in N_CLASSES)


def test_another_pickle_is_read_anew(tmp_path: Path) -> None:
    first = load_dataset("fc100", image_size=8, data_root=write_fc100(tmp_path))
    path = dump(tmp_path / "FC100_train.pickle", {"data": 255 - pixels("train"), "labels": labels("train")})
    os.utime(path, ns=(0, 1))
    assert load_dataset("fc100", image_size=8, data_root=tmp_path).fingerprint != first.fingerprint


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


def spoil_images(folder: Path, evil: object) -> str:
    write_mini(folder)
    dump(folder / "mini-imagenet-cache-val.pkl", {"image_data": evil, "class_dict": rows("val")})
    return "mini_imagenet"


def spoil_classes(folder: Path, evil: object) -> str:
    write_fc100(folder)
    dump(folder / "FC100_test.pickle", {"data": pixels("test"), "labels": labels("test"), "more": evil})
    return "fc100"


def spoil_png(folder: Path, evil: object) -> str:
    write_tiered(folder, "png")
    dump(folder / "train_images_png.pkl", [as_png(pixels("train")[0]), evil])
    return "tiered_imagenet"


def spoil_labels(folder: Path, evil: object) -> str:
    write_tiered(folder, "metaoptnet")
    dump(folder / "val_labels.pkl", {"labels": evil})
    return "tiered_imagenet"


def spoil_archive(folder: Path, evil: object) -> str:
    write_tiered(folder, "metaoptnet")
    np.savez(folder / "test_images.npz", images=np.array([evil], dtype=object))
    return "tiered_imagenet"


@pytest.mark.parametrize("spoil", [spoil_images, spoil_classes, spoil_png, spoil_labels, spoil_archive])
def test_a_file_that_would_run_code_is_refused(spoil: Callable[[Path, object], str], tmp_path: Path) -> None:
    marker = tmp_path / "was run"
    root = tmp_path / "root"
    root.mkdir()
    name = spoil(root, Evil(marker))
    wanted = r"(it wants (posix|nt)\.system, which is no number|Object arrays cannot).*Nothing in it was run.*Fetch"
    with pytest.raises(DataError, match=wanted) as error:
        load_dataset(name, image_size=8, data_root=root, cache_dir=tmp_path / "cache")
    assert str(root) in str(error.value), "the file is named"
    assert not marker.exists()
    assert not (tmp_path / "cache").exists(), "half a data set is not kept"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not a dictionary"),
        ({"pictures": 1}, r"has \['pictures'\], not image_data and class_dict, nor data and labels"),
        ({"image_data": pixels("test") / 255, "class_dict": {}}, r"float64 \[18, 10, 10, 3\]; expected uint8 \[image"),
        ({"image_data": pixels("test")[..., :2], "class_dict": {}}, r"uint8 \[18, 10, 10, 2\]; expected"),
        ({"image_data": pixels("test")[0, 0], "class_dict": {}}, r"uint8 \[10, 3\]; expected"),
        ({"image_data": pixels("test"), "class_dict": {"n1": [0, 18]}}, "name row 18, but it has 18 images"),
        ({"image_data": pixels("test"), "class_dict": {"n1": [-1]}}, "but it has 18 images"),
        ({"image_data": pixels("test"), "class_dict": {"n1": ["one"]}}, "invalid literal"),
        ({"image_data": pixels("test"), "class_dict": [0]}, "cannot be read"),
        ({"data": pixels("test"), "labels": [0] * 19}, "name row 18, but it has 18 images"),
        ({"data": pixels("test"), "labels": 3}, "cannot be read"),
    ],
)
def test_a_pickle_of_another_form_is_named(tmp_path: Path, content: object, message: str) -> None:
    write_mini(tmp_path)
    path = dump(tmp_path / "mini-imagenet-cache-test.pkl", content)
    with pytest.raises(DataError, match=message) as error:
        load_dataset("mini_imagenet", image_size=8, data_root=tmp_path)
    assert str(error.value).startswith(f"{path} cannot be read: ")


@pytest.mark.parametrize("damage", [b"", b"\x80", b"no pickle at all", b"\x80\x02}q\x00.", b"cut short"])
def test_a_damaged_pickle_is_named(tmp_path: Path, damage: bytes) -> None:
    write_mini(tmp_path)
    path = tmp_path / "mini-imagenet-cache-train.pkl"
    path.write_bytes(path.read_bytes()[:-500] if damage == b"cut short" else damage)
    with pytest.raises(DataError, match=rf"{path.name} cannot be read: [\w'].+\. Nothing in it .* Fetch the file"):
        load_dataset("mini_imagenet", image_size=8, data_root=tmp_path)


def test_damaged_images_inside_are_skipped_but_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    write_tiered(tmp_path, "png")
    images = [as_png(image) for image in pixels("val")]
    images[3] = images[3][:40]
    images.pop()
    dump(tmp_path / "val_images_png.pkl", images, 4)
    dataset = load_dataset("tiered_imagenet", image_size=8, data_root=tmp_path)
    assert {skipped.path for skipped in dataset.skipped} == {"val_images_png.pkl/3", "val_images_png.pkl/17"}
    dump(tmp_path / "val_images_png.pkl", ["text", 3])
    with pytest.raises(DataError, match=r"val_images_png\.pkl cannot be read: it is no list of encoded images"):
        load_dataset("tiered_imagenet", image_size=8, data_root=tmp_path)
    (tmp_path / "val_images_png.pkl").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"val_images_png\.pkl cannot be read"):
        load_dataset("tiered_imagenet", image_size=8, data_root=tmp_path)


@pytest.mark.parametrize(
    ("write", "name", "removed", "message"),
    [
        (
            write_mini,
            "mini_imagenet",
            "mini-imagenet-cache-val.pkl",
            "no mini-imagenet-cache-val.pkl or mini-imagenet-",
        ),
        (write_fc100, "fc100", "FC100_test.pickle", "no FC100_test.pickle, which belongs"),
        (
            lambda folder: write_tiered(folder, "png"),
            "tiered_imagenet",
            "val_images_png.pkl",
            "or val_images.npz, which",
        ),
    ],
)
def test_a_missing_split_is_named(
    tmp_path: Path, write: Callable[[Path], Path], name: str, removed: str, message: str
) -> None:
    write(tmp_path)
    (tmp_path / removed).unlink()
    with pytest.raises(DataError, match=message):
        load_dataset(name, image_size=8, data_root=tmp_path)


@pytest.mark.parametrize("name", ["mini_imagenet", "fc100", "tiered_imagenet"])
def test_without_files_the_error_says_where_they_are_and_how_to_lay_them_out(
    name: str, tmp_path: Path, user_cache_of_the_test: Path
) -> None:
    for root, place in ((tmp_path, tmp_path / name), (None, user_cache_of_the_test / "data" / name)):
        with pytest.raises(DataError) as error:
            load_dataset(name, image_size=8, data_root=root)
        assert str(error.value).startswith(f"{name}: none of ")
        for part in (f"is in {place}", "not downloaded", "Fetch ", "https://zenodo.org/record/7978538", "--data-root"):
            assert part in str(error.value)


def pack_fc100(archive: Path, top: str = "") -> Path:
    folder = write_fc100(archive.parent / "unpacked")
    write_zip(archive, {f"{top}{path.name}": path.read_bytes() for path in sorted(folder.iterdir())})
    shutil.rmtree(folder)
    return archive


@pytest.mark.parametrize("place", ["fc100.zip", "fc100/fc100.zip", "FC100/FC100.zip"])
@pytest.mark.parametrize("top", ["", "FC100/"])
def test_fc100_is_read_from_its_archive(tmp_path: Path, place: str, top: str) -> None:
    write_fc100(tmp_path / "plain")
    plain = load_dataset("fc100", image_size=10, data_root=tmp_path / "plain")
    (tmp_path / "packed" / place).parent.mkdir(parents=True)
    archive = pack_fc100(tmp_path / "packed" / place, top)
    packed = load_dataset("fc100", image_size=10, data_root=tmp_path / "packed")
    assert packed.fingerprint == plain.fingerprint
    assert [path for path in archive.parent.iterdir() if path.is_file()] == [archive], "nothing was unpacked beside it"


def test_another_archive_is_read_anew(tmp_path: Path) -> None:
    archive = pack_fc100(tmp_path / "fc100.zip")
    first = load_dataset("fc100", image_size=8, data_root=tmp_path)
    with zipfile.ZipFile(archive) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    content = {"data": 255 - pixels("train"), "labels": labels("train")}
    write_zip(archive, files | {"FC100_train.pickle": pickle.dumps(content)})
    os.utime(archive, ns=(0, 1))
    assert load_dataset("fc100", image_size=8, data_root=tmp_path).fingerprint != first.fingerprint


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    archive = pack_fc100(tmp_path / "fc100.zip")
    whole = archive.read_bytes()
    image = pixels("train")[0].tobytes()
    archive.write_bytes(whole.replace(image, image[::-1]))
    with pytest.raises(DataError, match=r"fc100.zip/FC100_train.pickle cannot be read: Bad CRC-32"):
        load_dataset("fc100", image_size=8, data_root=tmp_path)
    archive.write_bytes(whole[:-30])
    with pytest.raises(DataError, match=r"fc100.zip cannot be read as a zip archive .* truncated"):
        load_dataset("fc100", image_size=8, data_root=tmp_path)


def test_an_archive_without_a_split_is_named(tmp_path: Path) -> None:
    write_zip(tmp_path / "fc100.zip", {"other.txt": b""})
    with pytest.raises(DataError, match=r"none of fc100.zip, FC100_train.pickle is in .* which may stay packed"):
        load_dataset("fc100", image_size=8, data_root=tmp_path)
    content = {"data": pixels("train"), "labels": labels("train")}
    write_zip(tmp_path / "fc100.zip", {"FC100_train.pickle": pickle.dumps(content)})
    with pytest.raises(DataError, match=r"fc100.zip/? holds no FC100_val.pickle"):
        load_dataset("fc100", image_size=8, data_root=tmp_path)


def test_what_is_found_can_be_read_by_name(tmp_path: Path) -> None:
    """Originals give every image as a file, whatever it lies in."""
    found, _ = find_dataset("fc100", LoadRequest(8, write_fc100(tmp_path)))
    names = found.files["base"]["base0"]  # type: ignore[union-attr]  # it is not drawn, so it has files
    image = Image.open(io.BytesIO(found.source.read(names[0])))  # type: ignore[union-attr]
    np.testing.assert_array_equal(np.asarray(image), pixels("train")[int(names[0].split("/")[1])])
