"""The files of a network, one writer a format."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch

from metantk_nas.errors import UsageError, unknown_name
from metantk_nas.export.program import Program, UnfitError, features_program, predictor_program, program_bytes
from metantk_nas.export.python import python_source
from metantk_nas.export.record import record_text, texts, to_record
from metantk_nas.export.subject import Subject, require_cells
from metantk_nas.report.cells import draw_cell
from metantk_nas.results import write_bytes

Format = Literal["py", "pt", "onnx", "json", "text", "svg"]

ENDINGS: Mapping[str, tuple[str, ...]] = {
    "py": (".py", "_weights.pt"),
    "pt": (".pt2", "_predictor.pt2"),  # .pt2 is what PyTorch calls an exported program; .pt are weights
    "onnx": (".onnx", "_predictor.onnx"),
    "json": (".json",),
    "text": (".txt",),
    "svg": (".svg",),
}
"""What the files of each format end with, the main one first."""

Contents = Mapping[str, bytes]
"""Files by what their names end with: ``.…`` the main one, ``_….…`` those beside it, after the same stem."""


@dataclass(frozen=True)
class Exported:
    """What an export left behind.

    Args:
        paths: the files, the main one first.
        notes: sentences about what could not be exported.
    """

    paths: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def export(
    subject: Subject, form: Format, out: Path, *, n_way: int | None = None, keep: Path | None = None
) -> Exported:
    """Write a network in one format; nothing is written where a part of it fails.

    Args:
        subject: the network, and the learner it was trained by if there is one.
        form: ``"py"``, Python source, with the weights of a trained network beside it; ``"pt"``, PyTorch's exported
            program, and ``"onnx"``, both of the features and, where it can be, of the whole learner; ``"json"``, a
            description; ``"text"``, how papers write cells; ``"svg"``, drawings of the cells.
        out: the main file; others stand beside it.
        n_way: classes of the whole learner; None for as many as it was trained for.
        keep: a file that must not be overwritten, the one that was read.

    Raises:
        UsageError: the format does not exist or does not fit the network, a library is missing, or a file cannot be
            written.
        ExportError: what would be written does not compute what the network does.
    """
    if form not in ENDINGS:
        raise unknown_name("format", form, ENDINGS)
    if keep is not None and keep.resolve() in [_path(out, ending).resolve() for ending in ENDINGS[form]]:
        raise UsageError(f"{keep} is the file that is exported; choose another name with --out.")
    contents, notes = _WRITERS[form](subject, out.stem, n_way)
    for ending, content in contents.items():
        write_bytes(_path(out, ending), content)
    return Exported(tuple(_path(out, ending) for ending in contents), tuple(notes))


def text_of(subject: Subject) -> str:
    """Return the texts of a network's cells, a line each."""
    space, genotype = require_cells(subject, "text of cells")
    return "".join(f"{name}: {text}\n" for name, text in texts(space, genotype).items())


def _path(out: Path, ending: str) -> Path:
    return out if ending.startswith(".") else out.with_name(out.stem + ending)


Written = tuple[Contents, list[str]]
"""Files, and notes about what could not be exported."""


def _py(subject: Subject, stem: str, _: int | None) -> Written:
    if subject.trained is None:
        return {".py": python_source(subject).encode()}, []
    buffer, weights = io.BytesIO(), f"{stem}_weights.pt"
    torch.save({name: value.contiguous() for name, value in subject.network.state_dict().items()}, buffer)
    return {".py": python_source(subject, weights=weights).encode(), "_weights.pt": buffer.getvalue()}, []


def _pt(subject: Subject, _: str, n_way: int | None) -> Written:
    return _programs(subject, n_way, "pt", lambda program, _: program_bytes(program))


def _onnx(subject: Subject, _: str, n_way: int | None) -> Written:
    try:
        onnx_model: Any = import_module("metantk_nas.export.onnx_model")  # its libraries are an extra
    except ImportError as error:
        raise UsageError(
            f"ONNX files need the libraries of the extra 'export' ({error}); install them with "
            "pip install 'metantk-nas[export]', or choose --format pt."
        ) from error
    return _programs(subject, n_way, "onnx", onnx_model.onnx_bytes)


def _programs(
    subject: Subject, n_way: int | None, form: Format, write: Callable[[Program, Mapping[str, str]], bytes]
) -> Written:
    """Write the features and, of a trained network, the whole learner if a graph can hold it."""
    facts = {"arch": subject.arch, "images": "as they were trained on" if subject.trained is None else "in [0, 1]"}
    main, whole = ENDINGS[form]
    contents, notes = {main: write(features_program(subject), facts)}, []
    if subject.trained is not None:
        try:
            contents[whole] = write(predictor_program(subject, n_way), facts)
        except UnfitError as error:
            notes.append(str(error))
    return contents, notes


def _json(subject: Subject, *_: object) -> Written:
    return {".json": record_text(to_record(subject)).encode()}, []


def _text(subject: Subject, *_: object) -> Written:
    return {".txt": text_of(subject).encode()}, []


def _svg(subject: Subject, *_: object) -> Written:
    space, genotype = require_cells(subject, "drawing")
    drawings = {
        ".svg" if len(genotype.cells) == 1 else f"_{cell_type}.svg": draw_cell(
            cell, n_inputs=space.n_inputs, output=space.output, title=f"{cell_type} cell of {subject.name}"
        ).encode()
        for cell_type, cell in genotype.cells
    }
    return drawings, []


_WRITERS: Mapping[str, Callable[[Subject, str, int | None], Written]] = {
    "py": _py,
    "pt": _pt,
    "onnx": _onnx,
    "json": _json,
    "text": _text,
    "svg": _svg,
}
