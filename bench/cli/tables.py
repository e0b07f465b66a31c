"""`bench tables`: tables out of run directories."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.arguments import a_path, add_runs_folder, require_formats, scenarios_of, words
from bench.cli.chosen import add_convention
from bench.cli.reports import NUMBERS, ON, SETS
from bench.cli.written import from_bundles, write_results

if TYPE_CHECKING:
    from reports.records import Run


def add_tables(parser: argparse.ArgumentParser) -> None:
    """Add `bench tables`."""
    add = parser.add_argument
    add(
        "table",
        nargs="*",
        help="1 2 3 4 as in the paper, measures, costs, statistics, published, or scenarios (default: all)",
    )
    add_runs_folder(parser, "--runs", bundles=True)
    add_convention(parser)
    add("--on", choices=SETS, help=f"{ON} (default: what there are runs of)")
    add("--compare", action="store_true", help="set published numbers of the same protocol beside ours")
    add("--scenario", metavar="NAME", help="with published: what the literature has of a scenario, from whom")
    add("--methods", type=words, default=[], help="with --scenario: of these methods alone")
    add("--out", type=a_path, default=Path("tables"), help="folder to write to (default tables)")
    add("--format", type=words, default=["csv", "latex"], help="csv,latex,markdown,html (default csv,latex)")
    parser.set_defaults(command=from_bundles(_tables))


def _tables(options: argparse.Namespace) -> int:
    from bench.cli.literature import print_published, require_published_alone

    if options.scenario is not None or options.methods:
        require_published_alone(options)
        return print_published(options)
    return _tables_of_runs(options)


def _tables_of_runs(options: argparse.Namespace) -> int:
    from bench.cli.literature import require_comparable
    from reports import compared, costs, measures, numbered, paper, scenario_tables, statistics_tables
    from reports.grids import MEMORY_SETTING
    from reports.markup import FORMATS
    from reports.notes import notes
    from reports.records import find_unfinished

    numbers = [int(name) for name in options.table if name in NUMBERS]
    scenarios = scenarios_of(options.table, (*NUMBERS, "measures", "costs", "statistics", "published"))
    require_comparable(options.compare, options.table, scenarios)
    require_formats(options.format, FORMATS)
    unfinished = find_unfinished(options.runs)
    per_scenario = {"measures": measures.write_measures, "costs": costs.write_costs}
    chosen = [write_tables for name, write_tables in per_scenario.items() if name in options.table]
    plain = not chosen and bool(scenarios or not options.table)

    def write(runs: list[Run], out: Path, formats: Sequence[str]) -> list[Path]:
        written: list[Path] = []
        if numbers:
            written += numbered.write_numbered(numbers, runs, out, formats, options.on, options.compare, unfinished)
        for write_tables in [scenario_tables.write_tables] if plain else chosen:
            written += write_tables(runs, out, formats, scenarios or None, unfinished)
        if plain and options.compare:
            beside = scenarios or compared.comparable_scenarios(runs)
            written += compared.write_compared(runs, out, formats, beside)
        if "statistics" in options.table:
            written += statistics_tables.write_statistics(runs, out, formats)
        if "published" in options.table:
            written.append(paper.write_disagreements(out))
        return written

    def told(runs: list[Run]) -> list[str]:
        if not options.table or len(numbers) < len(options.table):
            return [*notes(runs), *(compared.compared_notes(runs, scenarios or None) if options.compare else ())]
        return notes(numbered.runs_shown(numbers, runs, options.on), beside=[MEMORY_SETTING])

    return write_results(options, write, told, gaps=bool(options.table))
