import math
from typing import Any

import numpy as np
import pytest
import torch

from metantk_nas.episodes.dataset import FewShotDataset, make_dataset
from metantk_nas.networks.build import resize
from metantk_nas.results import make_ranking
from metantk_nas.rng import child_seed
from metantk_nas.scorers.kernel import KernelScorer
from metantk_nas.scorers.registry import rank_rule
from metantk_nas.spaces.load import load_space
from metantk_nas.store import Candidate
from metantk_nas.types import Score
from tests.contracts.scorer import ScorerContract, assert_close, make_setup, noise, noise_dataset
from tests.contracts.space import draw
from tests.networks.chunks import NOTHING, SPACES, build_alone
from tests.reference.alignment import dense_alignment
from tests.reference.dense_ntk import dense_adaptation_loss, dense_metantk, dense_ntk

ADAPTATIONS = ["maml", "anil"]


class TestKernelScorer(ScorerContract):
    scorer = KernelScorer


def spectral_numbers(kernel: np.ndarray) -> dict[str, float]:
    eigenvalues = np.linalg.eigvalsh(kernel)
    weights = eigenvalues / eigenvalues.sum()
    entropy = -float((weights * np.log(weights)).sum())
    return {
        "condition_number": eigenvalues[-1] / eigenvalues[0],
        "trace": np.trace(kernel),
        "smallest_eigenvalue": eigenvalues[0],
        "largest_eigenvalue": eigenvalues[-1],
        "spectral_entropy": entropy,
        "effective_rank": math.exp(entropy),
    }


@pytest.mark.parametrize(("adaptation", "inner_time"), [("maml", math.inf), ("anil", 0.5)])
@pytest.mark.parametrize("space", SPACES)
def test_every_value_is_that_of_the_dense_kernels_of_a_network_built_alone(
    space: str, adaptation: str, inner_time: float
) -> None:
    options: dict[str, Any] = {"adaptation": adaptation, "inner_time": inner_time, "output_reduction": "trace"}
    setup = make_setup(space, dtype=torch.float64, seed=7, **options)
    (genotype,) = draw(setup.space, 1)
    (finding,) = KernelScorer(setup).score([genotype], 1)
    seed = child_seed(7, "repeat", 1)
    alone, rows = build_alone(setup.space, genotype, seed=seed, in_channels=3).double(), setup.rows(1)
    theta = dense_ntk(alone, rows.images, every_output=True)
    base = theta if adaptation == "maml" else dense_ntk(alone, rows.images, only="head", every_output=True)
    plain = {"tau": inner_time, "reg": 1e-3}
    meta = dense_metantk(theta, base, n_episodes=2, n_support=3, n_query=3, **plain)
    labels, episodes = [[0, 1, 2]] * 2, [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]]
    expected = {
        **spectral_numbers(meta),
        "adaptation_loss": dense_adaptation_loss(base, labels, labels, n_way=3, **plain),
        **{f"ntk_{name}": value for name, value in spectral_numbers(theta).items()},
        "kernel_alignment": np.mean([dense_alignment(theta[np.ix_(own, own)], [0, 1, 2] * 2) for own in episodes]),
    }
    assert dict(finding.values) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("space", SPACES)
def test_in_single_precision_chunks_agree_to_four_digits(space: str) -> None:
    wide = resize(load_space(space), init_channels=16, n_cells=3)
    scorer, chunk = KernelScorer(make_setup(wide)), draw(wide, 3, seed=1)
    assert_close([scorer.score([genotype], 0)[0] for genotype in chunk], scorer.score(chunk, 0), rel=1e-4)


def dataset_of(*classes: np.ndarray) -> FewShotDataset:
    base = {f"class{index}": images for index, images in enumerate(classes)}
    return make_dataset("made up", {"base": base, "validation": {}, "novel": {}})


def with_duplicate() -> FewShotDataset:
    """Three classes of three images; in the first class two are the same."""
    first = noise("a", 3)
    first[1] = first[0]
    return dataset_of(first, noise("b", 3), noise("c", 3))


@pytest.mark.parametrize("n_episodes", [1, 2])
def test_an_episode_with_a_duplicated_image_is_singular(n_episodes: int) -> None:
    """One support and two query images of a class are all it has, so every episode shows the image twice."""
    setup = make_setup(dataset=with_duplicate(), n_query=2, n_episodes=n_episodes)
    for finding in KernelScorer(setup).score(draw(setup.space, 4, seed=1), 0):
        assert finding.status == "singular"
        assert "MetaNTK: smallest eigenvalue" in finding.reason
        assert "images that the network cannot tell apart" in finding.reason


def test_an_image_that_two_episodes_share_is_no_trouble() -> None:
    """A small folder has no images to spare; only within an episode are equal rows singular."""
    setup = make_setup(dataset=noise_dataset(n_classes=3, n_images=4), n_episodes=3)
    assert len(setup.rows(0).distinct) < len(setup.rows(0).images)
    for finding in KernelScorer(setup).score(draw(setup.space, 3, seed=1), 0):
        assert finding.status == "ok"
        assert finding.values["condition_number"] > 1
        assert finding.values["ntk_condition_number"] > 1


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
@pytest.mark.parametrize("inner_reg", [1e-3, 0.0])
def test_a_cell_without_a_path_has_no_signal(adaptation: str, inner_reg: float) -> None:
    setup = make_setup(adaptation=adaptation, inner_reg=inner_reg)
    healthy, nothing = KernelScorer(setup).score([draw(setup.space, 1)[0], setup.space.parse(NOTHING)], 0)
    assert healthy.status == "ok"
    assert nothing.status == "no_signal"
    assert "no path from input to output" in nothing.reason


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_constant_features_are_singular(adaptation: str) -> None:
    """The last normalisation shifts by one, so the features of a cell without a path are one for every image."""
    setup = make_setup(adaptation=adaptation)
    setup.network(0).final[0].bias.data.fill_(1)
    healthy, constant = KernelScorer(setup).score([draw(setup.space, 1)[0], setup.space.parse(NOTHING)], 0)
    assert healthy.status == "ok"
    assert constant.status == "singular"
    assert "constant features" in constant.reason


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_finite_touches_its_users_alone(adaptation: str, broken: float) -> None:
    setup = make_setup(adaptation=adaptation)
    user, other = (
        setup.space.parse(
            f"|{op}~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|skip_connect~2|".replace("none~1|+", "skip_connect~1|+")
        )
        for op in ("nor_conv_3x3", "nor_conv_1x1")
    )
    setup.network(0).cells[0].ops["0_0_nor_conv_3x3"][1].weight.data.fill_(broken)
    first, second = KernelScorer(setup).score([user, other], 0)
    assert first.status == "not_finite"
    assert first.reason == "NTK: entries are NaN or infinite"
    assert second.status == "ok"


def test_trouble_ranks_last_and_nothing_is_dropped() -> None:
    setup = make_setup()
    chunk = [setup.space.parse(NOTHING), *draw(setup.space, 4, seed=1)]
    keys = [setup.space.key(genotype) for genotype in chunk]
    candidates = [
        Candidate(i, setup.space.format(genotype), keys[i], setup.space.format(genotype), 1, 1)
        for i, genotype in enumerate(chunk)
    ]
    scores = [
        Score(key, repeat, "kernel", finding.values, finding.status, finding.reason)
        for repeat in range(2)
        for key, finding in zip(keys, KernelScorer(setup).score(chunk, repeat), strict=True)
    ]
    for metrics in ("metantk", "condition_number", "smallest_eigenvalue", "ntk_condition_number"):
        frame = make_ranking(candidates, scores, rank_rule(metrics), seed=0).frame
        assert sorted(frame["key"]) == sorted(keys)
        assert frame["status"].tolist() == ["ok"] * 4 + ["no_signal"]
        assert frame["rank"].tolist()[-1] == 5
        assert "no path from input to output" in frame["reason"].iloc[-1]
        assert (frame["condition_number"].iloc[:4] >= 1).all()


def test_duplicates_leave_a_ranking_in_which_nobody_is_first() -> None:
    setup = make_setup(dataset=with_duplicate(), n_query=2)
    chunk = draw(setup.space, 3, seed=1)
    candidates, scores = [], []
    for index, (genotype, finding) in enumerate(zip(chunk, KernelScorer(setup).score(chunk, 0), strict=True)):
        text, key = setup.space.format(genotype), setup.space.key(genotype)
        candidates.append(Candidate(index, text, key, text, 1, 1))
        scores.append(Score(key, 0, "kernel", finding.values, finding.status, finding.reason))
    frame = make_ranking(candidates, scores, rank_rule("metantk"), seed=0).frame
    assert len(frame) == 3
    assert frame["status"].eq("singular").all()
    assert frame["score"].isna().all()
    assert frame["reason"].str.contains("cannot tell apart").all()


def test_anil_adapts_by_the_head_alone() -> None:
    genotype = draw(make_setup().space, 1)
    found = {name: KernelScorer(make_setup(adaptation=name)).score(genotype, 0)[0].values for name in ADAPTATIONS}
    assert found["maml"]["ntk_trace"] == found["anil"]["ntk_trace"]
    assert found["maml"]["trace"] != found["anil"]["trace"]


def test_without_an_inner_loop_the_metantk_is_the_ntk_of_the_queries() -> None:
    setup = make_setup(inner_time=0.0, dtype=torch.float64)
    scorer, genotype = KernelScorer(setup), draw(setup.space, 1)
    grams = scorer.grams(genotype, 0)
    (finding,) = scorer.score(genotype, 0)
    assert finding.values["trace"] == pytest.approx(grams.ntk[0].diagonal()[:6].sum().item())
    assert finding.values["adaptation_loss"] == pytest.approx(3 * (1 - 1 / 3))
