"""A scenario's table from finished runs: its rows and columns, its caption, and files in every format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from reports.by_scenario import write_by_scenario
from reports.class_notes import classes_note
from reports.conventions import UNKNOWN, background_counts, convention_text
from reports.files import RecordError
from reports.markup import Cell, Table, ranks, require_table_formats
from reports.notes import IMIOU, code, marks_note, origin_notes, settings_note, unfinished_note
from reports.records import Run, Unfinished
from reports.rows import NO_RUN, common_seeds, count_text, embedded_note, file_stem, own_seeds, row_name, seeds_text
from reports.tables import (
    CHOSEN,
    CONVENTIONS,
    COSTS,
    HELD,
    MEASURES,
    chosen_conventions,
    frame,
    group_breaks,
    ranked_groups,
    summary,
)


def write_tables(
    runs: Sequence[Run],
    out: Path,
    formats: Sequence[str] = ("csv", "latex"),
    scenarios: Sequence[str] | None = None,
    unfinished: Sequence[Unfinished] = (),
) -> list[Path]:
    """Write each scenario's table into the folder `out` and return the files, in order.

    `formats` are of `csv` (`<scenario>.csv`: the summary), `latex` (`.tex`: a `table` that needs booktabs),
    `markdown` (`.md`) and `html` (a fragment). `scenarios` are those of the runs by default; one without a finished run
    gets a table with a marked gap. `unfinished` runs are named in the caption; the CSV has their seeds beside those of
    the strategy's finished runs, and a row with n = 0 of a strategy that has none. Raises ValueError for an unknown
    format, RecordError if the runs of one scenario differ in its classes, or in their conventions
    (`require_one_convention`).
    """
    require_table_formats(formats)
    return write_by_scenario(
        runs,
        summary(frame(runs)),
        out,
        formats,
        scenarios,
        "",
        lambda scenario, rows: _csv(scenario, rows, unfinished),
        lambda scenario, rows, own: _table(scenario, rows, own, unfinished),
    )


def _csv(scenario: str, rows: pd.DataFrame, unfinished: Sequence[Unfinished]) -> str:
    missing: dict[str, set[int]] = {}
    for run in unfinished:
        if run.spec["scenario"] == scenario:
            missing.setdefault(run.spec["strategy"], set()).add(run.spec["seed"])
    gaps = [strategy for strategy in missing if strategy not in set(rows["strategy"])]
    if rows.empty and not gaps:
        gaps = [NO_RUN]
    if gaps:
        records = [*rows.to_dict("records"), *({"scenario": scenario, "strategy": gap, "n": 0} for gap in gaps)]
        rows = pd.DataFrame(records, columns=rows.columns)
    seeds = [seeds_text(missing.get(strategy, ())) for strategy in rows["strategy"]]
    rows = rows.assign(unfinished=seeds)
    rows = rows.drop(columns=[*COSTS, *HELD])  # of equal runs the results are equal, the costs are not
    return rows.to_csv(index=False, float_format="%.4f", lineterminator="\n")


def _table(scenario: str, rows: pd.DataFrame, runs: Sequence[Run], unfinished: Sequence[Unfinished]) -> Table:
    ranges = _ranges(scenario, runs)
    common = common_seeds(rows["seeds"]) if len(rows) else ""
    names = [row_name(row["strategy"], row["variant"]) + own_seeds(row["seeds"], common) for _, row in rows.iterrows()]
    groups = ranked_groups(rows)
    columns = [cells(rows, measure, groups) for measure in MEASURES]
    return Table(
        label=f"tab:{file_stem(scenario)}",
        header=["Methods", *ranges, *list(MEASURES.values())[2:]],
        rows=[[Cell(name), *numbers] for name, *numbers in zip(names, *columns, strict=True)],
        gap=NO_RUN,
        caption=" ".join(_caption(scenario, common, rows, runs, unfinished)),
        breaks=group_breaks(rows),
        wide=rows["settings"].nunique() > 1,  # long names
    )


def cells(rows: pd.DataFrame, measure: str, groups: Sequence[str | None]) -> list[Cell]:
    """Return one column's cells; best and second of each group by the mean as printed, equal means equally good."""
    means = ["--" if math.isnan(mean) else f"{mean:.2f}" for mean in rows[f"{measure}_mean"]]
    stds = ["" if math.isnan(std) else f"{std:.2f}" for std in rows[f"{measure}_std"]]
    return [Cell(*each) for each in zip(means, stds, ranks(means, groups), strict=True)]


def _ranges(scenario: str, runs: Sequence[Run]) -> tuple[str, str]:
    """The old and the new classes' places in learning order, as in the paper's headers: `0-15`, `16-20`."""
    sizes = {tuple(len(step["classes"]) for step in run.spec["steps"]) for run in runs}
    if len(sizes) > 1:
        raise RecordError(f"{scenario}: its runs differ in their numbers of classes per step: {sorted(sizes)}")
    if not sizes:
        return "old", "new"
    base, *later = sizes.pop()
    first = 0 if any(background_counts(run.spec["conventions"]) for run in runs) else 1
    return _range(first, base), _range(base + 1, base + sum(later)) if later else "new"


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


# ---------------------------------------------------------------- captions (code between backticks)


def _caption(
    scenario: str, common: str, rows: pd.DataFrame, runs: Sequence[Run], unfinished: Sequence[Unfinished]
) -> list[str]:
    note = embedded_note(scenario)
    missing = unfinished_note(scenario, unfinished, len(runs))
    sentences = [(f"Mean IoU (%) after the last step of {code(scenario)}{f' ({note})' if note else ''}; {IMIOU}")]
    if rows.empty:
        return [*sentences, missing] if missing else sentences
    sentences.append(classes_note(runs))
    kind = "Mean ± standard deviation over seeds" if (rows["n"] > 1).any() else "One seed"
    own = " unless a row says otherwise" if set(rows["seeds"]) != {common} else ""
    sentences += [f"{kind}: {count_text(common)}{own}.", missing]
    sentences.append(conventions_note(runs))
    sentences += [settings_note(runs), marks_note(runs), *origin_notes(runs)]
    return list(filter(None, sentences))


def conventions_note(runs: Sequence[Run]) -> str:
    """Return what the runs of a table, all by the same conventions, are counted by; '' without a run."""
    if not runs:
        return ""
    shown = {**CONVENTIONS, **{key: CHOSEN[key] for key in chosen_conventions(runs)}}
    return f"Conventions: {'; '.join(f'{words} {_shown(key, runs)}' for key, words in shown.items())}."


def _shown(key: str, runs: Sequence[Run]) -> str:
    """One convention's value, the same in all runs of a table."""
    return code(convention_text(runs[0].spec["conventions"].get(key, UNKNOWN)))
