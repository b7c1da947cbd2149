"""ONNX files of graphs, checked in ONNX Runtime; the only file that needs the extra ``export``."""

import re
from collections.abc import Mapping
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor

from metantk_nas.export.onnx_solve import cholesky_ex, cholesky_solve
from metantk_nas.export.program import Inputs, Program, UnfitError, quiet

OPSET = 18
"""Version of the operators: PyTorch's own translations are written in it."""

TRANSLATIONS: dict[Any, Any] = {
    torch.ops.aten.linalg_cholesky_ex.default: cholesky_ex,
    torch.ops.aten.cholesky_solve.default: cholesky_solve,
}


def onnx_bytes(program: Program, facts: Mapping[str, str]) -> bytes:
    """Translate a graph to ONNX and check its outputs in ONNX Runtime.

    Args:
        program: the graph.
        facts: what the file says of itself, by name.

    Raises:
        UnfitError: ONNX has no operator for a part of the graph.
        ExportError: outputs differ from the network's.
    """
    try:
        with quiet():
            translated: Any = torch.onnx.export(
                program.graph,
                input_names=list(program.rows),
                output_names=[program.output],
                opset_version=OPSET,
                external_data=False,
                custom_translation_table=TRANSLATIONS,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        lacking = re.search(r"op='([\w.]+)'", str(error))
        raise UnfitError(
            f"ONNX has no operator for {lacking[1] if lacking else 'a part of this graph'}; expected a learner whose "
            "adaptation sums, multiplies or solves, such as protonet. --format pt holds more."
        ) from error
    model = _tidy(translated.model_proto, program)
    onnx.helper.set_model_props(model, dict(facts))
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    program.check(lambda inputs: _run(session, inputs))
    return bytes(content)


def _run(session: onnxruntime.InferenceSession, inputs: Inputs) -> Tensor:
    (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return torch.from_numpy(found)


def _tidy(model: onnx.ModelProto, program: Program) -> onnx.ModelProto:
    """Name the free numbers of rows, and remove what the translation notes down about the code it saw."""
    _forget(model.graph)
    model.graph.name = program.output
    names: dict[str, str] = {}
    for value in (*model.graph.input, *model.graph.output):
        rows = value.type.tensor_type.shape.dim[0]
        names.setdefault(rows.dim_param, program.rows.get(value.name, program.output))
        rows.dim_param = names[rows.dim_param]
    return model


def _forget(graph: onnx.GraphProto) -> None:
    """Remove notes from a graph and the bodies of its loops."""
    del graph.value_info[:]
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget(attribute.g)
