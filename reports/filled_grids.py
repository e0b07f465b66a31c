"""The paper's numbered tables filled: the numbers of every cell by seed, and the runs that they are of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reports.conventions import background_counts, require_one_convention
from reports.files import RecordError
from reports.grids import MEMORY_SETTING, Block, Grid, NeededRun, Row, need_of, needed
from reports.paper import published_value
from reports.records import Run, run_order
from reports.rows import RowId, row_id, row_settings, seeds_text, variants
from reports.tables import spread_of

BESIDE = (MEMORY_SETTING,)
"""The setting that a heading tells."""


@dataclass(frozen=True)
class Number:
    """One number of a table: a column's value of every seed, in per cent; none where there is no run."""

    need: NeededRun
    row: Row
    block: Block
    column: str
    by_seed: Mapping[int, float]
    runs: Sequence[Run]
    settings: str
    """In which the rows of this block differ, '' if in none."""
    published: float | None

    @property
    def conventions(self) -> Mapping[str, Any]:
        """Those of its runs, which share them."""
        return self.runs[0].spec["conventions"] if self.runs else {}

    @property
    def mean(self) -> float:
        """Over the seeds, NaN without one."""
        return float(np.mean(list(self.by_seed.values()))) if self.by_seed else math.nan

    @property
    def std(self) -> float:
        """The sample standard deviation (ddof = 1), NaN below two seeds."""
        return spread_of(np.array(list(self.by_seed.values())))

    @property
    def seeds(self) -> str:
        """In order, separated by a blank."""
        return seeds_text(self.by_seed)

    @property
    def difference(self) -> float:
        """Ours minus the paper's, NaN where the paper has none."""
        return math.nan if self.published is None else self.mean - self.published


def filled(chosen: Grid, runs: Sequence[Run]) -> list[list[Number]]:
    """Return the numbers of every row of a table, from left to right; those of cells without a run are empty.

    Raises RecordError, one line, if runs of different settings would fill one cell, if one was given twice, or if the
    runs differ in their conventions.
    """
    by_need: dict[NeededRun, list[Run]] = {need: [] for need in needed(chosen.table, chosen.dataset)}
    for run in sorted(runs, key=run_order):
        need = need_of(run)
        if need in by_need:
            by_need[need].append(run)
    require_one_convention([run for own in by_need.values() for run in own])
    for need, own in by_need.items():
        _require_one_setting(need, own)
    settings = {block: row_settings(_scenario_runs(chosen, block, by_need), BESIDE) for block in chosen.layout.blocks}
    return [
        [
            number
            for block in chosen.layout.blocks
            for number in _numbers(chosen, row, block, by_need[chosen.cell(row, block)], settings[block])
        ]
        for row in chosen.layout.rows
    ]


def _scenario_runs(chosen: Grid, block: Block, by_need: Mapping[NeededRun, list[Run]]) -> list[Run]:
    """The runs of a block's scenario, of any size of memory."""
    return [run for need, own in by_need.items() if need.scenario == f"{chosen.dataset}-{block.split}" for run in own]


def _require_one_setting(need: NeededRun, runs: Sequence[Run]) -> None:
    """Refuse runs that would be averaged in one cell although their settings differ, or that are one run twice."""
    where = f"{need.scenario}, {need.strategy}, memory {need.memory}"
    names = variants(runs)
    if len(names) > 1:
        first = {row: next(run.path for run in runs if row_id(run) == row) for row in names}
        kinds = " and ".join(f"{first[row]} ({text})" for row, text in names.items())
        raise RecordError(
            f"{where}: {kinds} differ in a setting and would fill one cell; give a folder with one of them"
        )
    seen: dict[int, Path] = {}
    for run in runs:
        if run.spec["seed"] in seen:
            raise RecordError(
                f"{seen[run.spec['seed']]} and {run.path}: the same run twice, its seed would count double"
            )
        seen[run.spec["seed"]] = run.path


def _numbers(
    chosen: Grid, row: Row, block: Block, runs: Sequence[Run], settings: Mapping[RowId, str]
) -> Iterable[Number]:
    need = chosen.cell(row, block)
    for column, _ in block.columns:
        yield Number(
            need=need,
            row=row,
            block=block,
            column=column,
            by_seed={run.spec["seed"]: _value(run, column) for run in runs},
            runs=runs,
            settings=settings[row_id(runs[0])] if runs else "",
            published=None
            if chosen.embedded
            else published_value(chosen.table, need.scenario, need.memory, need.strategy, column),
        )


def _value(run: Run, column: str) -> float:
    """A column after the last step, with or without the background as the run's conventions say."""
    last = run.steps[-1]
    without = f"{column}_without_background"
    if without in last and not background_counts(run.spec["conventions"]):
        column = without
    if column not in last:
        raise RecordError(f"{run.path / 'steps.csv'}: no column {column}, which scenario {run.spec['scenario']} has")
    return last[column]
