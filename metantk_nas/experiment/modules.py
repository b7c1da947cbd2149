"""Modules of one's own in a ranking: the same episodes, scorers and columns as for architectures of a space."""

import importlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from metantk_nas.episodes.request import Progress
from metantk_nas.errors import UsageError, unknown_name
from metantk_nas.experiment.latency import latency_score
from metantk_nas.experiment.scoring import rank_proposals, refuse_foreign
from metantk_nas.experiment.workbench import Workbench
from metantk_nas.experiment.workers import Note
from metantk_nas.kernels.gram import check_rows_independent, ntk
from metantk_nas.networks.latency import latency
from metantk_nas.networks.own import ONLY, Factory, OwnModule, OwnNetwork
from metantk_nas.results import Ranking, make_ranking
from metantk_nas.scorers.registry import METRICS, make_scorers
from metantk_nas.scorers.setup import ScoringSetup
from metantk_nas.searchers.given import GivenSearcher
from metantk_nas.store import Candidate, ScoreStore
from metantk_nas.types import Score

Modules = Mapping[str, Factory | nn.Module]
"""What is scored, by the name that it gets in the ranking."""

SAME_ROW = 1e-3
"""By how much a row's logits may differ beside other rows, in parts of the largest."""


def load_factory(text: str) -> Factory:
    """Import ``package.module:factory``; the working directory is searched too. This runs the code of that module.

    Raises:
        UsageError: the text or the module is not what it should be.
    """
    home, colon, name = text.partition(":")
    if not colon or not home or not name:
        raise UsageError(f"--module {text!r} names no factory; expected package.module:factory, such as mynets:resnet.")
    sys.path.insert(0, "")
    try:
        found = importlib.import_module(home)
    except Exception as error:  # whatever a stranger's code raises
        raise UsageError(
            f"--module {text}: {home} cannot be imported ({type(error).__name__}: {error}); expected a module that is "
            "installed, or a file of the working directory."
        ) from error
    finally:
        sys.path.remove("")
    if not hasattr(found, name):
        raise unknown_name(f"factory of {home}", name, (each for each in vars(found) if not each.startswith("_")))
    factory = getattr(found, name)
    if not callable(factory):
        raise UsageError(f"--module {text} is {factory!r}; expected a class or a function that returns a module.")
    return factory  # type: ignore[no-any-return]  # what it returns is checked when it is called


def rank_modules(
    bench: Workbench,
    modules: Modules,
    archs: Sequence[str],
    out: Path,
    *,
    progress: Progress | None = None,
    note: Note | None = None,
) -> Ranking:
    """Score modules, and architectures beside them, and rank them all together.

    Args:
        bench: space, data and scorers.
        modules: what is done to them before stands in `OwnModule`.
        archs: architecture texts of the space; may be empty.
        out: directory for the store of the architectures' scores. Those of modules are not kept, since a name does not
            say what code is behind it.
        progress: told how far the work is.
        note: as in `metantk_nas.experiment.scoring.score`.

    Raises:
        UsageError: a module cannot be scored; the message names it and the layer, or the metric.
        GenotypeError: a text is not an architecture of the space.
    """
    spec = bench.spec
    candidates: list[Candidate] = []
    scores: list[Score] = []
    owns = [_own(bench, name, factory) for name, factory in modules.items()]
    for own in owns:
        _check(bench, own)
    if archs:
        refuse_foreign(out)
        given = GivenSearcher([bench.space.parse(arch) for arch in archs])
        rank_proposals(bench, given, out / "scores.sqlite", progress=progress, note=note)
        with ScoreStore(out / "scores.sqlite", bench.fingerprint) as store:
            candidates, scores = list(store.candidates()), list(store.scores())
    for n_done, own in enumerate(owns, start=1):
        cost = own.cost()
        candidates.append(Candidate(len(candidates), own.name, own.name, own.name, cost.params, cost.macs))
        scores += _scores(bench, own)
        if progress is not None:
            progress("scoring modules", n_done, len(modules))
    return make_ranking(
        candidates, scores, spec.rule, spec.seed, objectives=spec.objectives, also=spec.further_rules, metrics=METRICS
    )


def _own(bench: Workbench, name: str, factory: Factory | nn.Module) -> OwnModule:
    spec = bench.spec
    return OwnModule(name, factory, spec.n_way, bench.dataset.n_channels, spec.image_size)


def _scores(bench: Workbench, own: OwnModule) -> list[Score]:
    """All scores of a module: every scorer in every repeat."""
    spec = bench.spec
    found: list[Score] = []
    setup = ScoringSetup(own, bench.dataset, spec, spec.seed, bench.device)
    for scorer in make_scorers(setup, spec.wanted):
        for repeat in range(spec.repeats):
            start = time.perf_counter()
            (finding,) = scorer.score([ONLY], repeat)
            seconds = time.perf_counter() - start
            found.append(Score(own.name, repeat, scorer.name, finding.values, finding.status, finding.reason, seconds))
    if spec.wants_latency:
        shape = (spec.latency_batch, own.in_channels, own.image_size, own.image_size)
        found.append(latency_score(own.name, latency(own.alone(), shape, bench.device)))
    return found


def _check(bench: Workbench, own: OwnModule) -> None:
    """Refuse what would get a wrong row.

    Raises:
        UsageError: names the module, and the layer or the metric.
    """
    network = own.build(bench.spec.seed, "group")
    try:
        check_rows_independent(network.body)
    except UsageError as error:
        raise UsageError(f"module {own.name!r}: {error}") from error
    metrics = {metric.name for metric in bench.spec.wanted}
    if "naswot" in metrics and not any(isinstance(layer, nn.ReLU) for layer in network.modules()):
        raise UsageError(
            f"naswot looks at nn.ReLU layers, and module {own.name!r} has none (functional.relu cannot be seen); "
            "leave this metric out, for example with --rank-by metantk, or use nn.ReLU."
        )
    shape = (2, own.in_channels, own.image_size, own.image_size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, alone = network(images), torch.cat([network(images[:1]), network(images[1:])])
    if not torch.allclose(together, alone, rtol=0, atol=SAME_ROW * float(alone.abs().max())):
        raise UsageError(
            f"module {own.name!r} gives an image other logits beside other images, so rows have no kernel of their "
            "own; expected a network that looks at each image alone."
        )
    _check_kernel(own.name, network.double(), images.double())


def _check_kernel(name: str, network: OwnNetwork, images: Tensor) -> None:
    """Hold the kernel of two images against the gradients of each alone, in float64.

    Raises:
        UsageError: they differ, since something happens beside the layers that the kernel watches.
    """
    weights = [layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    gradients = [torch.autograd.grad(network(image[None]).sum(), weights, materialize_grads=True) for image in images]
    jacobian = torch.stack([torch.cat([gradient.flatten() for gradient in row]) for row in gradients])
    expected = jacobian @ jacobian.T
    if not torch.allclose(ntk(network, images, head=network.head), expected, rtol=0, atol=1e-6 * float(expected.max())):
        raise UsageError(
            f"module {name!r} uses the weights of a layer without calling the layer, so the kernel cannot see it; "
            "expected self.conv(x) rather than functional.conv2d(x, self.conv.weight)."
        )
