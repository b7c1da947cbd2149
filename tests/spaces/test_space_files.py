from dataclasses import replace
from pathlib import Path

import pytest

from metantk_nas.errors import SpaceError
from metantk_nas.spaces.load import MAX_BYTES, load_space
from tests.spaces.conftest import MY_SPACE


def test_a_file_loads_by_path_in_every_spelling(my_space_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = load_space(my_space_file)
    assert (space.name, space.description, space.source) == ("mine", "", "")
    assert space.size == (2 * 3 * 3 * 3) ** 2
    monkeypatch.chdir(my_space_file.parent)
    monkeypatch.setenv("HOME", str(my_space_file.parent))
    assert load_space("mine.toml") == load_space("./mine.toml") == load_space("~/mine.toml") == space


def test_comments_of_the_file_reach_name_description_and_source(my_space_file: Path) -> None:
    my_space_file.write_text('description = "two nodes"\nsource = "own work"\n' + MY_SPACE)
    space = load_space(my_space_file)
    assert (space.description, space.source) == ("two nodes", "own work")


def test_all_edges_and_residual_reductions_can_be_asked_for(my_space_file: Path) -> None:
    text = MY_SPACE.replace("edges_per_node = 1", 'edges_per_node = "all"').replace('["normal", "reduce"]', '["cell"]')
    my_space_file.write_text(text)
    space = load_space(my_space_file)
    assert space.edges_per_node is None
    assert space.size == 3**2 * 3**3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n_nodes = 2", "n_nodes = ", r"not valid TOML: .*line 6"),
        ("n_nodes = 2", "n_nodes = 2\nn_nodes = 3", r"not valid TOML: .*line 7"),
        ("n_nodes = 2\n", "", r"\[cell\] lacks n_nodes; it needs types, n_inputs, n_nodes"),
        ("n_nodes = 2", "n_node = 2", r"key of \[cell\] 'n_node' not found; .*Did you mean 'n_nodes'\?"),
        ('name = "mine"', "", "space lacks name; it needs name, cell, skeleton"),
        ('name = "mine"', "nome = 'mine'", "key of space 'nome' not found.*Did you mean 'name'"),
        ('name = "mine"', 'name = "my space"', "name is 'my space'; expected up to 64 letters"),
        ('name = "mine"', 'name = "../mine"', "name is '../mine'"),
        ("[skeleton]", "[skeletons]", "key of space 'skeletons' not found.*Did you mean 'skeleton'"),
        ("n_nodes = 2", "n_nodes = '2'", r"n_nodes in \[cell\] is '2'; expected an integer"),
        ("n_nodes = 2", "n_nodes = true", "n_nodes in .* is True; expected an integer"),
        ("n_nodes = 2", "n_nodes = 0", "n_nodes is 0; expected 1 … 8"),
        ("n_nodes = 2", "n_nodes = 1000000000", "n_nodes is 1,000,000,000; expected 1 … 8"),
        ("n_inputs = 2", "n_inputs = 3", "n_inputs is 3; expected 1 … 2"),
        ("edges_per_node = 1", "edges_per_node = 3", "edges_per_node is 3; expected 1 … 2, because the first node"),
        ("edges_per_node = 1", "edges_per_node = 0", "edges_per_node is 0; expected 1 … 2"),
        ("edges_per_node = 1", 'edges_per_node = "al"', "is 'al'; expected an integer or \"all\""),
        ("edges_per_node = 1", "edges_per_node = true", 'is True; expected an integer or "all"'),
        ('"last"', '"sum"', "output is 'sum'; expected 'concat' or 'last'"),
        ('"skip_connect"', '"skip_conect"', "operation 'skip_conect' not found.*Did you mean 'skip_connect'"),
        ('"skip_connect"', '"nor_conv_3x3"', "expected at least one operation and each of them once"),
        ('["skip_connect", "nor_conv_3x3", "max_pool_3x3"]', "[]", r"ops are \[\]; expected at least one"),
        ('"skip_connect"', "3", r"ops in \[cell\] is \[3, .*expected a list of strings"),
        ('["normal", "reduce"]', '["reduce", "normal"]', r"cell types are .*expected one name .* or \['normal', 'red"),
        ('["normal", "reduce"]', '["reduce"]', r"cell types are \['reduce'\]; expected one name such as \['cell'\]"),
        ('["normal", "reduce"]', "[]", r"cell types are \[\]"),
        ('["normal", "reduce"]', '["my cell"]', r"cell types are \['my cell'\]"),
        ("init_channels = 8", "init_channels = 0", "init_channels is 0; expected 1 … 4,096"),
        ("n_cells = 4", "n_cells = 100000", "n_cells is 100,000; expected 1 … 1,000"),
        ("n_cells = 4", "n_cells = 4\nfinal_norm = 1", r"final_norm in \[skeleton\] is 1; expected true or false"),
        ("n_cells = 4", "n_cells = 4\nstem_multiplier = 0", "stem_multiplier is 0; expected 1 … 64"),
        ('["1/2"]', "[0.5]", r"reduce_at in \[skeleton\] is \[0.5\]; expected a list of fractions written as strings"),
        ('["1/2"]', '["1/0"]', "expected a list of fractions"),
        ('["1/2"]', '["3/2"]', r"reduce_at is \[3/2\]; expected ascending fractions in \[0, 1\)"),
        ('["1/2"]', '["2/3", "1/3"]', r"reduce_at is \[2/3, 1/3\]; expected ascending"),
        ('["1/2"]', '["1/3", "2/5"]', "n_cells = 4 is too few"),
        ('["1/2"]', "[]", "n_cells = 4, of which 0 reduce: there is no reduce cell, .*at least one reduction"),
        ('n_cells = 4\nreduce_at = ["1/2"]', 'n_cells = 1\nreduce_at = ["1/2"]', "there is no normal cell.*more cells"),
        ("[skeleton]", "[cell.skeleton]", "space lacks skeleton"),
        ('name = "mine"', 'name = "mine"\ncell = 3', "not valid TOML"),
        ('name = "mine"', f"name = {'[' * 10_000}", "not valid TOML"),
        ('name = "mine"', f'name = "{"x" * MAX_BYTES}"', "more than 20,000 bytes"),
    ],
)
def test_a_malformed_file_is_refused_by_name_and_fault(my_space_file: Path, old: str, new: str, message: str) -> None:
    assert old in MY_SPACE
    my_space_file.write_text(MY_SPACE.replace(old, new))
    with pytest.raises(SpaceError, match=message) as caught:
        load_space(my_space_file)
    assert "mine.toml" in str(caught.value)


def test_a_file_that_is_not_text_is_refused(my_space_file: Path) -> None:
    my_space_file.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(SpaceError, match=r"mine.toml is not valid TOML: .*utf-8"):
        load_space(my_space_file)


def test_a_table_must_be_a_table(my_space_file: Path) -> None:
    my_space_file.write_text('name = "mine"\ncell = 3\nskeleton = []\n')
    with pytest.raises(SpaceError, match="cell in space is 3; expected a table"):
        load_space(my_space_file)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"cannot read the search space .*absent.toml: No such file"):
        load_space(tmp_path / "absent.toml")
    with pytest.raises(SpaceError, match=r"cannot read the search space ~nobody-here/mine.toml: No such file"):
        load_space("~nobody-here/mine.toml")
    with pytest.raises(SpaceError, match=r"cannot read the search space .*: Is a directory"):
        load_space(str(tmp_path))


def test_an_unknown_name_gets_the_near_miss() -> None:
    with pytest.raises(SpaceError, match=r"space 'dart' not found; available: darts, .*Did you mean 'darts'"):
        load_space("dart")


def test_a_space_made_in_python_is_checked_like_a_file() -> None:
    with pytest.raises(SpaceError, match="n_nodes is 0"):
        replace(load_space("darts"), n_nodes=0)
