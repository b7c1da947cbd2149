"""Graphs of PyTorch's exporter, which need no class of this package, and the check that they compute the same."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from metantk_nas.errors import MetaNTKError, UsageError
from metantk_nas.export.modules import Features, FewShotPredictor
from metantk_nas.export.subject import Subject
from metantk_nas.learners.base import AbstractLearner
from metantk_nas.learners.registry import learner_name
from metantk_nas.networks.build import MLP

TOLERANCE = 1e-4
"""Largest difference from the network's outputs, in units of the largest of them: float32 sums round differently."""

TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack")
"""What PyTorch notes down in a graph about the code, and so the machine, that it comes from."""

EPISODE = {"support_images": "support", "support_labels": "support", "query_images": "query"}
"""Inputs of a predictor, and what their rows are called."""

DEFAULT_N_WAY = 5
"""Classes of a predictor whose head knew base classes only."""

Inputs = Mapping[str, Tensor]
"""Inputs of a graph by their names."""


class ExportError(MetaNTKError):
    """A graph that does not compute what the network does; no file is written."""


class UnfitError(UsageError):
    """A learner whose adaptation no graph can hold; the features of its network can be exported all the same."""


@dataclass(frozen=True, eq=False)
class Program:
    """A graph that was checked against the module it was traced from.

    Args:
        graph: what PyTorch exported.
        rows: what the rows of each input are called, by the input's name; their number is free.
        output: name of the output.
        probe: other inputs than those it was traced with, with other numbers of rows.
        expected: what the network itself makes of ``probe``.
    """

    graph: ExportedProgram
    rows: Mapping[str, str]
    output: str
    probe: Inputs
    expected: Tensor

    def check(self, run: Callable[[Inputs], Tensor]) -> None:
        """Check that what is about to be written computes what the network does.

        Raises:
            ExportError: it does not.
        """
        found = run(self.probe)
        difference = float((found - self.expected).abs().max() / self.expected.abs().max().clamp_min(1e-12))
        if not difference <= TOLERANCE:
            raise ExportError(
                f"the exported {self.output} differ from the network's by {difference:.1e} of the largest; expected at "
                f"most {TOLERANCE:.0e}. Nothing was written. Try another version of PyTorch than {torch.__version__}."
            )


def features_program(subject: Subject) -> Program:
    """Trace the features of a network; the number of images is free."""
    probe = {"images": subject.images(5, seed=1)}
    graph = _trace(Features(subject), {"images": subject.images(2)}, {"images": "image"})
    with torch.no_grad():
        images = probe["images"] if subject.trained is None else subject.trained.normalise(probe["images"])
        expected = subject.network.features(images)  # type: ignore[operator]  # every network has it
    return Program(graph, {"images": "image"}, "features", probe, expected)


def predictor_program(subject: Subject, n_way: int | None = None) -> Program:
    """Trace a trained learner, from labelled and other images to logits; the numbers of both are free.

    Args:
        subject: what was trained.
        n_way: number of classes; None for as many as it was trained for.

    Raises:
        UnfitError: there is no learner of images, or its adaptation is no fixed computation: it takes gradients, or
            leaves PyTorch.
        UsageError: its head has another number of classes.
    """
    trained = subject.trained
    if trained is None or subject.spec.arch == MLP:
        raise UnfitError(f"{subject.name} is no trained learner of images; expected a file such as models/NAME.pt.")
    if n_way is None:
        n_way = DEFAULT_N_WAY if trained.learner.head == "base_classes" else subject.spec.n_outputs
    probe = _episode(subject, n_way, n_shot=3)
    images = {name: trained.normalise(probe[name]) for name in ("support_images", "query_images")}
    predictor = trained.adapt(images["support_images"], probe["support_labels"], n_way)
    expected = predictor(images["query_images"])
    module = FewShotPredictor(subject, trained, n_way)
    try:
        graph = _trace(module, _episode(subject, n_way, n_shot=2), EPISODE)
    except Exception as error:  # a tracer meets code that was not written for it, and fails in many ways
        raise _unfit(trained.learner, (str(error) or type(error).__name__).splitlines()[0]) from error
    if any(node.target is torch.ops.higher_order.wrap_with_set_grad_enabled for node in graph.graph.nodes):
        raise _unfit(trained.learner, "it takes gradients")
    return Program(graph, EPISODE, "logits", probe, expected)


def _unfit(learner: AbstractLearner, reason: str) -> UnfitError:
    return UnfitError(
        f"the adaptation of learner {learner_name(learner)!r} is no fixed computation that a graph can hold "
        f"({reason}); the features of its network can be exported, and whole learners in closed form, such as protonet."
    )


def program_bytes(program: Program) -> bytes:
    """Return the file that ``torch.export.load`` reads, without this package."""
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program.graph, buffer)
        buffer.seek(0)
        loaded = torch.export.load(buffer).module()
        program.check(lambda inputs: loaded(**inputs).detach())
    return buffer.getvalue()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what PyTorch's exporters say of themselves from the user, who can do nothing about it."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


def _trace(module: nn.Module, inputs: Inputs, rows: Mapping[str, str]) -> ExportedProgram:
    """Trace a module with a free number of rows; notes about where it was traced are removed."""
    sizes = {name: Dim(name) for name in rows.values()}
    free = {name: {0: sizes[rows[name]]} for name in inputs}
    with torch.no_grad(), quiet():
        graph = torch.export.export(module.eval(), (), dict(inputs), dynamic_shapes=free)
    for node in graph.graph.nodes:
        for name in TRACES:
            node.meta.pop(name, None)
    return graph


def _episode(subject: Subject, n_way: int, *, n_shot: int) -> Inputs:
    """A random episode; its support labels are in no order."""
    labels = torch.arange(n_way).repeat(n_shot).flip(0)
    return {
        "support_images": subject.images(len(labels), seed=n_shot),
        "support_labels": labels,
        "query_images": subject.images(n_shot + 1, seed=n_shot + 1),
    }
