"""`bench tables published --scenario NAME`: what the literature has of a scenario, on the screen and as files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.cli.arguments import require_formats
from bench.settings.errors import RequestError

if TYPE_CHECKING:
    from rich.console import Console

    from reports.markup import Table


def require_published_alone(options: argparse.Namespace) -> None:
    """Raise RequestError where --scenario or --methods stand with anything but `published`."""
    if options.scenario is None:
        raise RequestError("--methods goes with published --scenario NAME")
    if options.table != ["published"] or options.compare:
        raise RequestError("--scenario is of what is published: bench tables published --scenario NAME")


def require_comparable(compare: bool, tables: Sequence[str], scenarios: Sequence[str]) -> None:
    """Raise RequestError where --compare stands with tables alone that nothing published stands beside.

    RecordError where one of the `scenarios` among them is one of which nothing is published.
    """
    from reports.literature import require_published

    beside = [name for name in tables if name not in ("costs", "statistics", "published")]
    if compare and ("costs" in tables or (tables and not beside)):
        raise RequestError("--compare is of the paper's tables 1 2 3 4 and of scenarios: name some, or nothing for all")
    for scenario in scenarios if compare else ():
        require_published(scenario)


def print_published(options: argparse.Namespace) -> int:
    """Print what is published of the scenario, and write it; RecordError where nothing is."""
    from rich.console import Console

    from bench.plan.folders import require_writable
    from reports.literature_tables import published_table, rows_of, write_published
    from reports.markup import FORMATS

    require_formats(options.format, FORMATS)
    rows = rows_of(options.scenario, options.methods)
    require_writable(options.out)
    _print(published_table(options.scenario, rows), Console(width=None if sys.stdout.isatty() else 180))
    for path in write_published(options.scenario, options.methods, options.out, options.format):
        print(path)
    return 0


def _print(table: Table, console: Console) -> None:
    """Print a table as it will be written, its caption below."""
    from rich.box import SIMPLE
    from rich.table import Table as Printed
    from rich.text import Text

    printed = Printed(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for place, header in enumerate(table.header):
        printed.add_column(header, justify="left" if place < table.stub else "right", overflow="fold")
    for row in table.rows:
        printed.add_row(*(Text(cell.text) for cell in row))
    console.print(printed)
    console.print(Text(table.caption.replace("`", "")))
