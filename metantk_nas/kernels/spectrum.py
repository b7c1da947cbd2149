"""Spectra of kernels, and what they say of a kernel's health."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spectra:
    """Eigenvalues of a batch of symmetric kernels, and which of them can be trusted.

    Args:
        eigenvalues: ascending, float64, ``[kernel, n]``; NaN where the kernel is not finite.
        status: per kernel ``"ok"``, ``"not_finite"``, ``"no_signal"`` or ``"singular"``.
        reason: per kernel one sentence, empty where ok.
    """

    eigenvalues: Tensor
    status: tuple[str, ...]
    reason: tuple[str, ...]

    @property
    def condition_number(self) -> Tensor:
        """λmax/λmin, at least 1 for a kernel in order; lower is better trainable (TE-NAS, arXiv 2102.11535)."""
        return self.largest / self.smallest

    @property
    def trace(self) -> Tensor:
        """Σλ, the total squared sensitivity of the outputs to the parameters."""
        return self.eigenvalues.sum(-1)

    @property
    def smallest(self) -> Tensor:
        """λmin."""
        return self.eigenvalues[:, 0]

    @property
    def largest(self) -> Tensor:
        """λmax."""
        return self.eigenvalues[:, -1]

    @property
    def spectral_entropy(self) -> Tensor:
        """``−Σ p ln p`` with ``p = λ/Σλ``, in nats; at most ln n, where all directions weigh the same."""
        weights = self.eigenvalues.clamp_min(0) / self.eigenvalues.clamp_min(0).sum(-1, keepdim=True)
        entropy: Tensor = torch.special.entr(weights).sum(-1)
        return entropy

    @property
    def effective_rank(self) -> Tensor:
        """``exp`` of the spectral entropy, between 1 and n (Roy & Vetterli, EUSIPCO 2007)."""
        return self.spectral_entropy.exp()


def spectra(kernels: Tensor, *, compute_dtype: torch.dtype) -> Spectra:
    """Decompose symmetric kernels and name what is wrong with them; nothing is repaired.

    A kernel with ``λmin ≤ ε·n·λmax`` is singular as far as its arithmetic can tell: its condition
    number would be noise, even negative.

    Args:
        kernels: ``[kernel, n, n]``, float64.
        compute_dtype: type in which the kernels' entries were computed; gives ε.
    """
    size = kernels.shape[-1]
    finite = kernels.isfinite().all(dim=-1).all(dim=-1)
    safe = torch.where(finite[:, None, None], kernels, 0)
    eigenvalues = torch.linalg.eigvalsh((safe + safe.mT) / 2)
    eigenvalues = torch.where(finite[:, None], eigenvalues, torch.nan).cpu()
    threshold = torch.finfo(compute_dtype).eps * size
    verdicts = [_verdict(values, threshold) for values in eigenvalues.tolist()]
    return Spectra(eigenvalues, tuple(status for status, _ in verdicts), tuple(reason for _, reason in verdicts))


def _verdict(eigenvalues: list[float], threshold: float) -> tuple[str, str]:
    """Judge one ascending spectrum."""
    smallest, largest = eigenvalues[0], eigenvalues[-1]
    if smallest != smallest:  # noqa: PLR0124 - NaN is the one value that differs from itself
        return "not_finite", "entries are NaN or infinite"
    if largest <= 0:
        return "no_signal", "all zero: no path from input to output, or nothing to train on it"
    if smallest <= threshold * largest:
        return "singular", (
            f"smallest eigenvalue {smallest:.3g} is zero to working precision (largest {largest:.3g}): "
            "images that the network cannot tell apart, or constant features"
        )
    return "ok", ""
