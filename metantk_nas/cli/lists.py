"""Commands that list what there is: spaces, learners, searchers and metrics."""

from typing import Annotated, Any

import typer

from metantk_nas.cli import options as opt
from metantk_nas.cli.screen import print_facts, print_list, print_note
from metantk_nas.plugins import Registry
from metantk_nas.report.words import with_unit
from metantk_nas.spaces.load import load_space, spaces_by_name


def spaces(
    name: Annotated[str | None, typer.Argument(help="A name or a TOML file, to see all of it.")] = None,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """List the search spaces, or describe one."""
    if name is None:
        listed = {each: load_space(each) for each in spaces_by_name()}
        rows = [
            {"name": name, "architectures": f"{each.size:,}", "description": each.description}
            for name, each in listed.items()
        ]
        print_list(["name", "architectures", "description"], rows, as_json=as_json)
        _print_broken(spaces_by_name())
        return
    space = load_space(name)
    skeleton = space.skeleton
    print_facts(
        {
            "name": space.name,
            "description": space.description,
            "source": space.source,
            "architectures": f"{space.size:,}",
            "per cell type": f"{space.cell_size:,} ({', '.join(space.cell_types)})",
            "cell": f"{space.n_inputs} inputs, {space.n_nodes} nodes, output: {space.output}",
            "edges per node": "all" if space.edges_per_node is None else str(space.edges_per_node),
            "operations": ", ".join(space.ops),
            "skeleton": f"{skeleton.n_cells} cells, {skeleton.init_channels} channels, "
            f"halving at cells {', '.join(map(str, skeleton.reduction_positions)) or 'none'}",
        },
        as_json=as_json,
    )


def learners(as_json: opt.Json = False, debug: opt.Debug = False) -> None:
    """List the few-shot learners and their settings."""
    from metantk_nas.learners.registry import LEARNERS

    rows = [
        {
            "name": info.name,
            "description": info.description,
            "paper": info.paper,
            "settings": ", ".join(f"{name}={value}" for name, value in info.settings.items()) or "none",
        }
        for info in LEARNERS.values()
    ]
    print_list(["name", "description", "paper", "settings"], rows, as_json=as_json)
    _print_broken(LEARNERS)


def searchers(as_json: opt.Json = False, debug: opt.Debug = False) -> None:
    """List the searchers and their settings."""
    from metantk_nas.searchers.registry import SEARCHERS

    rows = [
        {
            "name": name,
            "description": entry.description,
            "source": entry.source or "–",
            "settings": ", ".join(f"{setting}={value}" for setting, value in entry.defaults.items()) or "none",
        }
        for name, entry in SEARCHERS.items()
    ]
    print_list(["name", "description", "source", "settings"], rows, as_json=as_json)


def metrics(as_json: opt.Json = False, debug: opt.Debug = False) -> None:
    """List the metrics, their directions, and the ranking presets."""
    from metantk_nas.scorers.registry import METRICS, PRESETS

    rows = [
        {
            "name": metric.name,
            "better": "higher" if metric.higher_is_better else "lower",
            "description": with_unit(metric.description, metric.unit),
            "source": metric.source,
        }
        for metric in METRICS.values()
    ]
    rows += [
        {
            "name": name,
            "better": "preset",
            "description": rule.parts,
            "source": "ranks of the parts, summed",
        }
        for name, rule in PRESETS.items()
    ]
    print_list(["name", "better", "description", "source"], rows, as_json=as_json)
    _print_broken(METRICS)


def _print_broken(registry: Registry[Any]) -> None:
    """Tell of plug-ins that could not be loaded."""
    for sentence in registry.broken:
        print_note(sentence)
