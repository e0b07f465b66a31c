"""The commands that list what there is: strategies, networks, scenarios, and a scenario's steps."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from bench.cli.arguments import a_path, add_data_root, add_lists

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoint

    from strategies.plugins.registry import Plugins

_NAME_WIDTH = 12


def add_strategies(parser: argparse.ArgumentParser) -> None:
    """Add `bench strategies`."""
    parser.add_argument("--check", action="store_true", help="import each one and say what is wrong with it")
    parser.set_defaults(command=_strategies)


def _strategies(options: argparse.Namespace) -> int:
    from bench.settings.strategies import GRIDS
    from strategies.learning.registry import STRATEGIES

    broken = _print_plugins(STRATEGIES, _strategy_state if options.check else None)
    for name, strategies in GRIDS.items():
        print(f"{name:<{_NAME_WIDTH}} a grid of {len(strategies)}: {', '.join(strategies)}")
    return _print_unreadable(STRATEGIES, options.check) or int(broken)


def _strategy_state(name: str) -> str:
    from bench.plan.strategy_check import problem_of

    problem = problem_of(name)
    return f"BROKEN: {problem}" if problem else "ok"


def add_networks(parser: argparse.ArgumentParser) -> None:
    """Add `bench networks`."""
    text = "build each one and print its parameters, stride, multiplications and milliseconds, or what is wrong with it"
    parser.add_argument("--check", action="store_true", help=text)
    parser.set_defaults(command=_networks)


def _networks(options: argparse.Namespace) -> int:
    from strategies.networks.registry import NETWORKS

    broken = _print_plugins(NETWORKS, _network_state if options.check else None)
    return _print_unreadable(NETWORKS, options.check) or int(broken)


def _network_state(name: str) -> str:
    from bench.plan.network_check import look_at

    return str(look_at(name))


def _print_plugins(plugins: Plugins, state_of: Callable[[str], str] | None) -> bool:
    """Print a line for each plug-in, from metadata alone but for its state; return whether one is broken."""
    broken = False
    points = plugins.entry_points()
    width = max(_NAME_WIDTH, *map(len, points), 0)
    for name, point in points.items():
        package = f"{point.dist.name} {point.dist.version}" if point.dist else ""
        state = state_of(name) if state_of else ""
        broken |= state.startswith("BROKEN")
        line = f"{name:<{width}} {point.value:<32} {package}  {state}  {_note(plugins, point)}"
        print(line.rstrip(), flush=bool(state_of))
    return broken


def _print_unreadable(plugins: Plugins, is_fault: bool) -> int:
    """Print which packages cannot be looked into; return 1 where there are some and that is a fault."""
    unreadable = plugins.unreadable_packages()
    for place, reason in unreadable.items():
        print(f"{place}: BROKEN: the metadata of a package there cannot be read: {reason}")
    return int(bool(unreadable) and is_fault)


def _note(plugins: Plugins, point: EntryPoint) -> str:
    """Return in brackets what else has the name of a plug-in."""
    from bench.settings.strategies import GRIDS
    from strategies.learning.registry import STRATEGIES
    from strategies.plugins.registry import full_name

    several = plugins.packages_declaring(point.name)
    if len(several) > 1:
        return f"('{point.name}' is declared by {' and by '.join(several)})"
    is_grid = plugins == STRATEGIES and point.name in GRIDS
    return f"('{point.name}' is a grid; ask for {full_name(point)})" if is_grid else ""


def add_scenarios(parser: argparse.ArgumentParser) -> None:
    """Add `bench scenarios`."""
    parser.set_defaults(command=_scenarios)


def _scenarios(options: argparse.Namespace) -> int:
    from benchmarks.names import parse_name, scenario_names, step_sizes
    from benchmarks.sets.registry import image_set_class

    for name in scenario_names():
        parsed = parse_name(name)
        class_names = image_set_class(parsed.dataset).fixed_class_names or ()
        print(f"{name:<24} {' + '.join(map(str, step_sizes(parsed, len(class_names) - 1)))} classes")
    print("any BASE-INCREMENT that comes out even, 10+6+4, sequential, and your own images: see docs/data.md")
    return 0


def add_scenario(parser: argparse.ArgumentParser) -> None:
    """Add `bench scenario`."""
    parser.add_argument("name", help="e.g. voc-15-1-disjoint")
    add_data_root(parser)
    text = "from the classes that each image shows instead (id and class numbers a line; test list: val for train)"
    parser.add_argument("--class-list", type=a_path, metavar="FILE", help=text)
    add_lists(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_scenario)


def _scenario(options: argparse.Namespace) -> int:
    from bench.plan.folders import data_root_of
    from benchmarks.class_list import ClassList
    from benchmarks.decoding import MAX_MEGAPIXELS
    from benchmarks.names import parse_name
    from benchmarks.scenarios import SharedIds, load_scenario

    shared: SharedIds = "allow" if options.shared_ids == "allow" else "refuse"
    root = options.data_root
    if options.class_list is None:
        root = data_root_of(parse_name(options.name).dataset, root)
    most = options.max_megapixels or MAX_MEGAPIXELS
    scenario = load_scenario(options.name, root, options.train_list, shared, options.class_list, most)
    described = scenario.as_dict()
    if options.json:
        print(json.dumps(described, indent=2))
        return 0
    print(described["name"])
    if isinstance(scenario.imageset, ClassList):
        print(f"classes of {scenario.imageset.told()}")
    print(f"division {described['division']}")
    names = scenario.imageset.class_names
    published = scenario.published_sizes
    for step in described["steps"]:
        t = step["step"]
        note = ""
        if published:
            note = "as published" if published[t] == step["train_images"] else f"published: {published[t]}"
        tested = "unknown" if step["test_images"] is None else f"{step['test_images']:>5}"
        print(f"step {t}: {step['train_images']:>6} training, {tested} test images  {note}".rstrip())
        if foreign := scenario.images_without_own_class[t]:
            print(f"        {foreign} of the training images show none of the step's classes")
        print(f"        classes {', '.join(f'{c} {names[c]}' for c in step['classes'])}")
        print(f"        train_sha256 {step['train_sha256']}")
    print(f"split_hash {described['split_hash'] or 'unknown'}")
    for remark in scenario.remarks():
        print(f"note: {remark}")
    return 0
