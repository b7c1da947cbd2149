"""Lambda patterns: MAML whose inner loop touches some layers only, and which pattern of layers adapts fastest."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import final

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from metantk_nas.episodes.episode import Episode
from metantk_nas.errors import UsageError
from metantk_nas.evaluation import Evaluation, evaluate
from metantk_nas.learners.base import MetaModel, Parameters, bind
from metantk_nas.learners.inner_loop import AbstractInnerLoop, descend, fit_loss, weights
from metantk_nas.learners.sources import Source

TIMED_EPISODES = 10
MOST_LAYERS = 8
"""Networks of up to so many layers are searched through all patterns; of more, through runs of neighbouring layers."""


@final
@dataclass(frozen=True)
class LambdaPattern(AbstractInnerLoop):
    """Layer-wise patterns of adaptation (Khabarlak 2022, arXiv 2206.05930).

    ``θ_l ← θ_l − α Λ_l ∇_l L_S`` with ``Λ_l ∈ {0, 1}`` for each layer; the outer loop minimises ``L_Q(θ_i)`` in all
    weights. No gradient is computed below the first layer that moves, which is where time is saved. All ones are
    MAML; the head alone is ANIL; all but the head is BOIL (Oh et al., ICLR 2021, arXiv 2008.08882; α = 0.5),
    registered as ``boil``. A model trained with all ones can be asked afterwards which pattern is fastest for its
    accuracy: `fastest_pattern`.

    The paper's layers are those of Conv-4. For any network a layer here is a block that it names: a block of Conv-4,
    a cell, the head (`layers`).

    Args:
        pattern: ``"all"``, ``"head"``, ``"body"`` (all but the head), or Λ as a digit 0 or 1 for each layer from
            input to head, such as ``"00011"``.
        first_order: drop second derivatives.
        inner_lr: α.
        inner_steps: gradient steps while training.
        inner_steps_test: gradient steps when adapting to new classes.
    """

    pattern: str = "all"
    first_order: bool = False
    inner_lr: float = 0.4
    inner_steps: int = 1
    inner_steps_test: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pattern not in ("all", "head", "body") and not re.fullmatch("[01]*1[01]*", self.pattern):
            raise UsageError(
                f"pattern is {self.pattern!r}; expected 'all', 'head', 'body', or a digit 0 or 1 for each layer, "
                "not all of them 0, such as '00011'."
            )

    def adapted(
        self, model: MetaModel, parameters: Parameters, images: Tensor, labels: Tensor, *, steps: int
    ) -> Parameters:
        """Descend in the layers that the pattern names; the others stay."""
        loss = fit_loss(model, images, labels, frozen=parameters)
        fast = {name: parameters[name] for name in self._moving(parameters)}
        fast = dict(descend(loss, fast, lr=self.inner_lr, steps=steps, first_order=self.first_order))
        return {**parameters, **fast}

    def _moving(self, parameters: Parameters) -> list[str]:
        """Names of the parameters that the inner loop moves."""
        groups = layers(parameters)
        words = {"all": "1" * len(groups), "head": "0" * (len(groups) - 1) + "1", "body": "1" * (len(groups) - 1) + "0"}
        digits = words.get(self.pattern, self.pattern)
        if len(digits) != len(groups):
            raise UsageError(
                f"pattern {self.pattern!r} has {len(digits)} digits, but the network has {len(groups)} layers: "
                f"{', '.join(groups)}."
            )
        return [name for digit, names in zip(digits, groups.values(), strict=True) if digit == "1" for name in names]


def layers(parameters: Parameters) -> dict[str, list[str]]:
    """Group the weights of a network by layer, from input to head: ``blocks.0``, ``cells.3``, ``head``."""
    groups: dict[str, list[str]] = {}
    for name in weights(parameters):
        found = re.match(r"network\.(\w+(?:\.\d+)?)", name)
        groups.setdefault(found[1] if found else name, []).append(name)
    return groups


@dataclass(frozen=True)
class PatternChoice:
    """The fastest pattern whose quality will do, beside the adaptation of all layers.

    Args:
        pattern: a digit for each layer.
        found: how it did on the validation episodes.
        full: how adapting all layers did on the same episodes.
        seconds: mean time of one adaptation.
        full_seconds: mean time of adapting all layers.
    """

    pattern: str
    found: Evaluation
    full: Evaluation
    seconds: float
    full_seconds: float

    @property
    def speed_up(self) -> float:
        """How many times faster adaptation has become."""
        return self.full_seconds / self.seconds


def fastest_pattern(
    learner: LambdaPattern,
    model: MetaModel,
    episodes: Source,
    *,
    allowed_loss: float = 0.01,
    n_episodes: int = 100,
    device: torch.device | str = "cpu",
) -> PatternChoice:
    """Find the pattern that adapts with the least work, and is hardly worse than adapting all layers.

    Patterns are tried in order of the multiplications they take, which are counted and so always the same; the
    first that passes is chosen. Times are measured for it and for the full pattern only.

    Args:
        learner: its own pattern does not matter.
        model: trained, in evaluation mode.
        episodes: of validation classes.
        allowed_loss: how much lower the mean accuracy may be, in [0, 1]; in regression, how much higher the mean
            squared error.
        n_episodes: episodes each pattern is judged on.
        device: where the model lives.
    """
    full = evaluate(bind(replace(learner, pattern="all"), model), episodes, n_episodes, device=device)
    for pattern in _by_work(learner, model, episodes(0).to(device)):
        candidate = replace(learner, pattern=pattern)
        found = evaluate(bind(candidate, model), episodes, n_episodes, device=device)
        loss = full.mean - found.mean if full.measure == "accuracy" else found.mean - full.mean
        if loss <= allowed_loss or "0" not in pattern:
            break
    support = [episodes(index).to(device) for index in range(TIMED_EPISODES)]
    seconds, full_seconds = (_seconds(replace(learner, pattern=p), model, support) for p in (pattern, "all"))
    return PatternChoice(pattern, found, full, seconds, full_seconds)


def _by_work(learner: LambdaPattern, model: MetaModel, episode: Episode) -> Iterator[str]:
    """All patterns but the empty one, least multiplications first; of equals, the one that moves more layers."""

    def work(pattern: str) -> tuple[int, int]:
        with FlopCounterMode(display=False) as counter:
            _adapt(replace(learner, pattern=pattern, inner_steps_test=1), model, episode)
        return counter.get_total_flops(), -pattern.count("1")

    yield from sorted(_patterns(len(layers(dict(model.named_parameters())))), key=work)


def _patterns(n_layers: int) -> list[str]:
    """Patterns worth trying; the full one is always among them."""
    if n_layers <= MOST_LAYERS:
        return ["".join(digits) for digits in product("01", repeat=n_layers) if "1" in digits]
    runs = combinations(range(n_layers + 1), 2)
    return ["0" * start + "1" * (stop - start) + "0" * (n_layers - stop) for start, stop in runs]


def _seconds(learner: LambdaPattern, model: MetaModel, episodes: list[Episode]) -> float:
    """Mean wall-clock time of an adaptation, after one that does not count."""
    _adapt(learner, model, episodes[0])
    start = time.perf_counter()
    for episode in episodes:
        _adapt(learner, model, episode)
    if episodes[0].support_images.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(episodes)


def _adapt(learner: LambdaPattern, model: MetaModel, episode: Episode) -> None:
    with torch.no_grad():
        bind(learner, model)(episode.support_images, episode.support_labels, episode.n_way)
