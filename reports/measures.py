"""All measures of a run beside each other: a table per scenario, `bench tables measures`.

Old, new and all classes, their harmonic mean, the means over steps, forgetting, and what is over pixels, not classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from reports.by_scenario import write_by_scenario
from reports.contours import boundary_iou
from reports.conventions import background_counts
from reports.counting import under
from reports.forgetting import forgetting
from reports.markup import Cell, Table, require_table_formats
from reports.metrics import frequency_weighted_iou, harmonic_mean, mean_of_present, pixel_accuracy
from reports.notes import code, origin_notes, settings_note, unfinished_note
from reports.records import Run, Unfinished
from reports.rows import NO_RUN, embedded_note, file_stem, row_name, seeds_text
from reports.scenario_tables import cells, conventions_note
from reports.tables import frame, group_breaks, headline, ranked_groups, spread_of, summary

HEADERS = {
    "old": "old",
    "new": "new",
    "miou": "all",
    "hiou": "hIoU",
    "imiou": "imIoU",
    "avg": "avg",
    "forgetting": "forgetting",
    "backward_transfer": "backward transfer",
    "pixel_accuracy": "pixel acc.",
    "frequency_weighted_iou": "fw. IoU",
    "boundary_iou": "boundary IoU",
}
"""The measures of the table, columns of `measured`, with their headers."""
_LESS_IS_BETTER = "forgetting"


def measured(runs: Sequence[Run], convention: str | None = None) -> pd.DataFrame:
    """Return one row per run and step with all measures.

    Columns: `scenario`, `strategy`, `variant`, `settings`, `seed`, `step`, and those of `HEADERS`: as in
    `reports.tables.headline`, with the background or not as the conventions say; `hiou`, NaN before there are new
    classes; `forgetting` and `backward_transfer` as in `reports.forgetting.forgetting`, NaN before there is an
    increment; `pixel_accuracy` and `frequency_weighted_iou` of all pixels that count; `boundary_iou`, the mean over
    classes, NaN for a run made before there were contours. By a `convention` all are counted anew
    (`reports.counting.under`). Raises what `frame` does, and RecordError for damaged matrices and contours.
    """
    counted = under(runs, convention)
    key = ["scenario", "strategy", "variant", "settings", "seed", "step"]
    steps = frame(counted)
    rows = headline(steps).merge(forgetting(steps)[[*key, "forgetting", "backward_transfer"]], how="left", on=key)
    rows["hiou"] = [harmonic_mean(old, new) for old, new in zip(rows["old"], rows["new"], strict=True)]
    of_pixels = pd.DataFrame([{"run": str(run.path), **row} for run in counted for row in _of_pixels(run)])
    if len(rows):
        rows = rows.merge(of_pixels, on=["run", "step"])
    return rows.reindex(columns=[*key, *HEADERS])


def _of_pixels(run: Run) -> Iterable[dict[str, float]]:
    """What each step's matrix and contours give."""
    first = 0 if background_counts(run.spec["conventions"]) else 1
    for row, confusion, contours in zip(run.steps, run.confusions, run.contours, strict=True):
        iou = np.array([]) if contours is None else boundary_iou(contours, run.spec["conventions"])[first:]
        yield {
            "step": row["step"],
            "pixel_accuracy": pixel_accuracy(confusion),
            "frequency_weighted_iou": frequency_weighted_iou(confusion),
            "boundary_iou": 100 * mean_of_present(iou),
        }


def write_measures(
    runs: Sequence[Run],
    out: Path,
    formats: Sequence[str] = ("csv", "latex"),
    scenarios: Sequence[str] | None = None,
    unfinished: Sequence[Unfinished] = (),
) -> list[Path]:
    """Write each scenario's table of measures `<scenario>-measures.*` into the folder `out`; return the files.

    Mean and standard deviation over seeds (ddof = 1). Raises ValueError for an unknown format, RecordError if the runs
    of a scenario differ in their conventions (`require_one_convention`).
    """
    require_table_formats(formats)

    def table_of(scenario: str, rows: pd.DataFrame, own: Sequence[Run]) -> Table:
        return _table(scenario, rows, own, unfinished)

    rows = _over_seeds(runs)
    return write_by_scenario(runs, rows, out, formats, scenarios, "-measures", lambda _, own: _csv(own), table_of)


def _over_seeds(runs: Sequence[Run]) -> pd.DataFrame:
    """A row per row of `reports.tables.summary`, in its order."""
    key = ["scenario", "strategy", "variant"]
    every = measured(runs).groupby([*key, "seed"], sort=False).tail(1)
    records = []
    for row in summary(frame(runs)).to_dict("records"):
        own = every[np.logical_and.reduce([every[name] == row[name] for name in key])]
        record = {**{name: row[name] for name in (*key, "settings", "n")}, "seeds": seeds_text(own["seed"])}
        for name in HEADERS:
            values = own[name].to_numpy(float)
            record |= {f"{name}_mean": values.mean(), f"{name}_std": spread_of(values)}
        records.append(record)
    spread = [f"{name}_{kind}" for name in HEADERS for kind in ("mean", "std")]
    return pd.DataFrame(records, columns=[*key, "settings", "n", "seeds", *spread])


def _csv(rows: pd.DataFrame) -> str:
    return str(rows.to_csv(index=False, float_format="%.4f", lineterminator="\n"))


def _table(scenario: str, rows: pd.DataFrame, runs: Sequence[Run], unfinished: Sequence[Unfinished]) -> Table:
    note = embedded_note(scenario)
    groups = ranked_groups(rows)
    columns = [_cells(rows, name, groups) for name in HEADERS]
    names = [row_name(row["strategy"], row["variant"]) for row in rows.to_dict("records")]
    sentences = [
        f"All measures after the last step of {code(scenario)}{f' ({note})' if note else ''}, in per cent; mean and "
        "standard deviation over seeds. hIoU is the harmonic mean of old and new; imIoU is over the increments 1..T, "
        "avg over steps 0..T; forgetting (less is better) and backward transfer are in points, means over the classes "
        "of each earlier step, of which those that became better count against the others; pixel accuracy and "
        "frequency-weighted IoU are over all pixels that count, the background's too; boundary IoU is the mean over "
        "classes, of the pixels within 2 % of the image's diagonal of a contour.",
        unfinished_note(scenario, unfinished, len(runs)),
        conventions_note(runs),
        settings_note(runs),
        *origin_notes(runs),
    ]
    return Table(
        label=f"tab:{file_stem(scenario)}-measures",
        header=["Methods", *HEADERS.values()],
        rows=[[Cell(name), *numbers] for name, *numbers in zip(names, *columns, strict=True)],
        gap=NO_RUN,
        caption=" ".join(filter(None, sentences)),
        breaks=group_breaks(rows),
        wide=True,
    )


def _cells(rows: pd.DataFrame, name: str, groups: Sequence[str | None]) -> list[Cell]:
    if name != _LESS_IS_BETTER:
        return cells(rows, name, groups)
    turned = cells(rows.assign(**{f"{name}_mean": -rows[f"{name}_mean"]}), name, groups)
    return [replace(cell, rank=other.rank) for cell, other in zip(cells(rows, name, groups), turned, strict=True)]
