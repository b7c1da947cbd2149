"""The Python file: it computes the same without this package, its weights keep their names, and it is tidy."""

import ast
import random
import re
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metantk_nas.errors import RunError
from metantk_nas.export.blocks import CALLS, FUNCTIONS
from metantk_nas.export.files import export
from metantk_nas.export.python import python_source
from metantk_nas.export.subject import Subject, subject_of_learner
from metantk_nas.networks import ops
from metantk_nas.networks.norms import NormKind
from metantk_nas.spaces.load import load_space
from metantk_nas.spaces.space import Skeleton
from tests.export.networks import close, conv4, features, saved_learner, subject_in
from tests.learners.test_saved_learner import Evil
from tests.networks.chunks import NOTHING, SPACES, small
from tests.spaces.strategies import genotypes, spaces

ROOT = Path(__file__).resolve().parents[2]
THIRDS = (Fraction(1, 3), Fraction(2, 3))
SKELETONS = [
    Skeleton(4, 3, THIRDS),
    Skeleton(4, 2, (Fraction(0),)),
    Skeleton(6, 4, (Fraction(1, 2), Fraction(3, 4)), stem_multiplier=3, final_norm=True),
    Skeleton(5, 4, ()),
]


@st.composite
def subjects(draw: st.DrawFn) -> Subject:
    """Any genotype of any space a user might write, on some skeleton."""
    space = draw(spaces(max_nodes=5))
    stacked = [each for each in SKELETONS if each.reduce_at or len(space.cell_types) == 1]
    space = replace(space, skeleton=draw(st.sampled_from(stacked)))
    norm: NormKind = draw(st.sampled_from(["batch", "batch_stats", "group", "none"]))
    return subject_in(space, draw(genotypes(space)), norm=norm)


def tidy(folder: Path) -> str:
    """What ruff says, with the project's own settings, of the Python files in a folder."""
    config = ["--no-cache", "--config", str(ROOT / "pyproject.toml"), str(folder)]
    said = ""
    for command in (["check", "--quiet"], ["format", "--quiet", "--diff"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *config], capture_output=True, text=True, check=False
        )
        if "No module named ruff" in done.stderr:
            pytest.skip("ruff is in the extra 'check'")
        said += done.stdout + done.stderr
    return said


def test_any_genotype_of_any_space_computes_the_same_elsewhere_and_is_tidy(abroad, tmp_path):
    written = []

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(subjects())
    def check(subject):
        path = tmp_path / f"network{len(written)}.py"
        path.write_text(python_source(subject), encoding="utf-8")
        written.append(path)
        network = subject.network.double()
        images = torch.rand(3, 3, 9, 11, dtype=torch.float64)
        found, logits = abroad(path, {"images": images}, weights=network.state_dict())
        with torch.no_grad():
            assert close(found, network.features(images), 1e-10)
            assert close(logits, network(images), 1e-10)

    check()
    assert len(written) >= 40
    assert tidy(tmp_path) == ""


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_full_networks_of_the_shipped_spaces_agree_to_a_millionth(name, seed, abroad, tmp_path):
    subject = subject_in(load_space(name), seed)
    (path,) = export(subject, "py", tmp_path / "network.py").paths
    images = subject.images(2)
    found, _ = abroad(path, {"images": images}, weights=subject.network.state_dict())
    assert close(found, features(subject, images), 1e-6)


@pytest.mark.parametrize("arch", ["conv4", "conv4-8-16-12-20", "conv4-8-strided"])
def test_conv4_agrees(arch, abroad, tmp_path):
    subject = conv4(arch)
    (path,) = export(subject, "py", tmp_path / "network.py").paths
    found, _ = abroad(path, {"images": subject.images(3)}, weights=subject.network.state_dict())
    assert close(found, features(subject, subject.images(3)), 1e-6)
    assert tidy(tmp_path) == ""


@pytest.mark.parametrize(
    "text",
    [
        NOTHING,
        "|none~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|none~2|",
        "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|",
    ],
)
def test_cells_that_compute_little_agree_and_are_tidy(text, abroad, tmp_path):
    space = small("nas_bench_201")
    subject = subject_in(space, space.parse(text))
    (path,) = export(subject, "py", tmp_path / "network.py").paths
    images = subject.images(3)
    found, _ = abroad(path, {"images": images}, weights=subject.network.state_dict())
    assert close(found, features(subject, images), 1e-6)
    assert tidy(tmp_path) == ""


def test_only_the_operations_of_the_genotype_are_written():
    space = small("darts_fewshot")
    for seed in range(5):
        subject = subject_in(space, seed)
        source = python_source(subject)
        defined = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        called = {
            node.func.id
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert defined - {"Network"} <= called
        assert set(re.findall(r'"\d_\d_(\w+)"', source)) <= set(re.findall(r"'(\w+)'", subject.arch))


def test_every_operation_has_a_block():
    assert set(CALLS) | set(FUNCTIONS) == set(ops.OPS)


def test_the_source_imports_nothing_but_pytorch_and_does_nothing_else():
    tree = ast.parse(python_source(subject_in(small("darts"))))
    imported = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported == {"torch", "torch.nn"}
    kinds = (ast.Expr, ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    assert all(isinstance(node, kinds) for node in tree.body)


@pytest.mark.parametrize(
    "text",
    ['"""\nraise SystemExit("run")\n"""', "\\", 'ends with a quote"', "a\0b\x1b[31m\n\n#", "}{braces} %s", "x" * 5_000],
)
def test_hostile_descriptions_stay_inside_the_docstring(text):
    space = replace(small("nas_bench_201"), description=text, source=text)
    tree = ast.parse(python_source(subject_in(space)))
    kinds = (ast.Expr, ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    assert all(isinstance(node, kinds) for node in tree.body)
    assert sum(isinstance(node, ast.Expr) for node in tree.body) == 1


def test_the_architecture_in_the_docstring_reads_back():
    base = small("nas_bench_201")
    long = replace(base, n_nodes=8, skeleton=replace(base.skeleton, init_channels=2))
    for space in (base, long, small("darts")):
        subject = subject_in(space)
        docstring = ast.get_docstring(ast.parse(python_source(subject)))
        said = docstring.split("The architecture:")[1].split("It needs PyTorch")[0]
        assert space.parse(said.strip()) == subject.genotype


def test_a_trained_learner_brings_its_weights_and_its_normalisation(abroad, tmp_path):
    space = small("darts_fewshot")
    subject = saved_learner(tmp_path, "protonet", arch=space.format(space.sample(random.Random(3))), space=space)
    source, weights = export(subject, "py", tmp_path / "out" / "shipped.py").paths
    assert weights.name == "shipped_weights.pt"
    assert 'torch.load("shipped_weights.pt", weights_only=True)' in source.read_text()
    state = torch.load(weights, weights_only=True)
    assert set(state) == set(subject.network.state_dict())
    images = subject.images(3)
    found, _ = abroad(source, {"images": images}, weights=weights)
    assert close(found, features(subject, images), 1e-6)
    assert "MEAN = (0.5, 0.4, 0.3)\nSTD = (0.2, 0.25, 0.1)\n" in source.read_text()
    assert tidy(tmp_path / "out") == ""


@pytest.mark.parametrize(
    "change",
    [
        {"mean": ('"); raise SystemExit("run")', 0.0, 0.0)},
        {"network": {"image_size": "1"}},
        {"mean": (float("nan"), 0.0, 0.0)},
        {"std": (0.1,)},
    ],
)
def test_hostile_numbers_in_a_learner_are_refused(change, tmp_path):
    saved_learner(tmp_path, "protonet")
    (path,) = tmp_path.glob("*.pt")
    content = torch.load(path, weights_only=True)
    for name, value in change.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    torch.save(content, path)
    with pytest.raises(RunError, match="not a trained learner of this version"):
        subject_of_learner(path)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    torch.save({"learner": Evil()}, tmp_path / "learner.pt")
    with pytest.raises(RunError, match="not a trained learner"):
        subject_of_learner(tmp_path / "learner.pt")
