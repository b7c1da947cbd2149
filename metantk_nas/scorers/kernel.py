"""Scores from the spectra of the NTK and the MetaNTK."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from metantk_nas.kernels.alignment import kernel_alignment
from metantk_nas.kernels.gram import Grams, layerwise_grams
from metantk_nas.kernels.metantk import adaptation_loss, metantk
from metantk_nas.kernels.spectrum import Spectra, spectra
from metantk_nas.scorers.base import AbstractScorer, Finding
from metantk_nas.scorers.setup import ScoringSetup
from metantk_nas.spaces.subspace import Architecture
from metantk_nas.types import Metric

METANTK_PAPER = "MetaNTK-NAS, arXiv 2203.09137"
TE_NAS_PAPER = "TE-NAS, arXiv 2102.11535"


def _spectral_metrics(prefix: str, kernel: str, source: str) -> tuple[Metric, ...]:
    def metric(name: str, higher_is_better: bool, description: str, source: str) -> Metric:
        return Metric(f"{prefix}{name}", higher_is_better, description, source, averaging="geometric")

    return (
        metric("condition_number", False, f"λmax/λmin of the {kernel}: how unevenly training proceeds", source),
        metric("trace", True, f"sum of the {kernel}'s eigenvalues: how fast training starts", source),
        metric("smallest_eigenvalue", True, f"λmin of the {kernel}: its slowest direction", source),
        metric("largest_eigenvalue", False, f"λmax of the {kernel}: bounds the learning rate", source),
        Metric(f"{prefix}spectral_entropy", True, f"−Σ p ln p of the {kernel}'s spectrum", source, unit="nats"),
        metric("effective_rank", True, f"exp of the {kernel}'s spectral entropy", "Roy & Vetterli 2007"),
    )


class KernelScorer(AbstractScorer):
    """Spectra of the MetaNTK and of the plain NTK, its alignment with the labels, and the loss of the inner loop.

    The MetaNTK is that of the query rows; the plain NTK that of all distinct images, support and query.
    """

    name = "kernel"
    metrics = (
        *_spectral_metrics("", "MetaNTK", METANTK_PAPER),
        Metric(
            "adaptation_loss",
            False,
            "query loss after the closed-form inner loop, ‖A·Y_S − Y_Q‖² with centred one-hot labels",
            "query loss of kernel regression with the adapting kernel; arXiv 2203.09137, arXiv 2102.03909",
        ),
        *_spectral_metrics("ntk_", "NTK", TE_NAS_PAPER),
        Metric(
            "kernel_alignment",
            True,
            "centred alignment of the NTK with the labels of an episode, at most 1",
            "Cortes, Mohri & Rostamizadeh, JMLR 2012, arXiv 1203.0550, section 2",
        ),
    )

    def __init__(self, setup: ScoringSetup) -> None:
        self._setup = setup

    def score(self, architectures: Sequence[Architecture], repeat: int) -> list[Finding]:
        """Score a chunk: one forward, one backward, one Gram matrix per layer."""
        rows = self._setup.rows(repeat)
        grams = self.grams(architectures, repeat)
        settings = self._setup.kernel
        base = grams.ntk if settings.adaptation == "maml" else grams.head
        inner = {"inner_time": settings.inner_time, "inner_reg": settings.inner_reg}
        decompose = partial(spectra, compute_dtype=self._setup.dtype)
        meta = decompose(metantk(grams.ntk, base, rows.layout, **inner))
        loss = adaptation_loss(base, rows.layout, rows.support_labels, rows.query_labels, n_way=settings.n_way, **inner)
        plain = decompose(grams.ntk[:, rows.distinct][:, :, rows.distinct])
        alignment = kernel_alignment(grams.ntk, rows.layout, rows.support_labels, rows.query_labels)
        columns = {
            **_columns("", meta),
            "adaptation_loss": loss,
            **_columns("ntk_", plain),
            "kernel_alignment": alignment,
        }
        table = {name: values.tolist() for name, values in columns.items()}
        return [
            Finding({name: values[i] for name, values in table.items()}, *_verdict(meta, plain, i))
            for i in range(len(architectures))
        ]

    def grams(self, architectures: Sequence[Architecture], repeat: int) -> Grams:
        """Gram matrices of a chunk on one repeat's rows."""
        network = self._setup.network(repeat)
        chunk: Any = network.route(architectures, self._setup.device)
        return layerwise_grams(
            network,
            lambda images: network(images, chunk),
            self._setup.rows(repeat).images,
            head=network.head,
            n_candidates=len(architectures),
            users=dict(network.users(chunk)),
            output_reduction=self._setup.kernel.output_reduction,
        )


def _verdict(meta: Spectra, plain: Spectra, candidate: int) -> tuple[str, str]:
    """Status and reason of a candidate: both of its kernels must be in order."""
    for kernel, found in (("NTK", plain), ("MetaNTK", meta)):
        if found.status[candidate] != "ok":
            return found.status[candidate], f"{kernel}: {found.reason[candidate]}"
    return "ok", ""


def _columns(prefix: str, found: Spectra) -> dict[str, Tensor]:
    return {
        f"{prefix}condition_number": found.condition_number,
        f"{prefix}trace": found.trace,
        f"{prefix}smallest_eigenvalue": found.smallest,
        f"{prefix}largest_eigenvalue": found.largest,
        f"{prefix}spectral_entropy": found.spectral_entropy,
        f"{prefix}effective_rank": found.effective_rank,
    }
