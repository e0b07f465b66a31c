"""The paper's published numbers (Tables 1-4) and the places where it contradicts itself, read from `paper.yaml`."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from reports.atomic import write_atomic

Rows = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Disagreement:
    """One place where the paper contradicts itself.

    `what` and `where` (tables and sections); `values`: two numbers that should be one within `tolerance`, or,
    with `at_most`, the first of which should not be above the second; `quotes`: what is printed there, word for
    word; `why` they cannot both hold; `check`: the rule that finds it; `cells`: its table, scenario and strategy;
    `only_if`: the reading of the paper under which alone it is a contradiction, '' where it is one under any.
    """

    what: str
    where: list[str]
    values: dict[str, float]
    tolerance: float
    quotes: list[str]
    why: str
    check: str
    at_most: bool = False
    cells: dict[str, Any] = field(default_factory=dict)
    only_if: str = ""

    @property
    def excess(self) -> float:
        """By how much the values are further apart than `tolerance`; positive for a contradiction."""
        first, second = self.values.values()
        apart = first - second if self.at_most else abs(first - second)
        return apart - self.tolerance


def published(table: int) -> dict[str | int, Rows]:
    """Return a table's numbers as printed, in per cent: scenario (Table 2: memory size), strategy, column.

    Columns are those of steps.csv; ValueError for a table other than 1 to 4.
    """
    tables: dict[int, dict[str | int, Rows]] = _content()["tables"]
    if table not in tables:
        raise ValueError(f"table {table!r}: the paper's tables are {', '.join(map(str, tables))}")
    return tables[table]


def published_value(table: int, scenario: str, memory: int, strategy: str, column: str) -> float | None:
    """Return one printed number in per cent; None where the table has no such cell."""
    scenarios = published(table)
    rows = scenarios.get(memory) if table == 2 else scenarios.get(scenario)
    return (rows or {}).get(strategy, {}).get(column)


def disagreements() -> list[Disagreement]:
    """Return the places where the paper contradicts itself, in the order of `paper.yaml`."""
    return [Disagreement(**entry) for entry in _content()["disagreements"]]


def disagreements_markdown() -> str:
    """Return a Markdown page that lists the contradictions, each with its two values and why both cannot hold."""
    lines = ["# Where the paper contradicts itself", "", *_PREFACE]
    for number, entry in enumerate(disagreements(), start=1):
        lines += ["", f"## {number}. {entry.what}", "", _facts(entry), "", entry.why.strip()]
    return "\n".join(lines) + "\n"


_PREFACE = [
    "The published numbers are quoted as printed, these too: a comparison with one of them is a comparison",
    "with a number that another number in the paper denies. Three entries deny a reading of the paper instead,",
    "that its imIoU counts step 0: they are why imIoU is the mean over steps 1..T here, and then contradict nothing.",
]


def _facts(entry: Disagreement) -> str:
    values = "; ".join(f"{name}: {value:g}" for name, value in entry.values.items())
    quotes = ", ".join(f"`{quote}`" for quote in entry.quotes)
    only_if = f" A contradiction only if {entry.only_if}." if entry.only_if else ""
    return f"{', '.join(entry.where)}: {values}. Printed: {quotes}.{only_if}"


@cache
def _content() -> dict[str, Any]:
    text = (importlib.resources.files("reports") / "paper.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def write_disagreements(out: Path) -> Path:
    """Write `published-disagreements.md`, where the paper disagrees with itself, into a folder; return the file."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "published-disagreements.md"
    write_atomic(path, disagreements_markdown())
    return path
