"""A study on the page: its budget, what explains the trials' differences, and the best settings on test images."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from reports.markup import Cell, Table, html
from reports.page.parts import boxed, code, definitions, figure, note, subsection, svg_image
from reports.records import Run
from reports.rows import embedded_note, seeds_text
from reports.slices import write_slices
from reports.statistics import paired
from reports.statistics_tables import interval_cell
from reports.study import Study
from reports.templating import joined
from reports.tuned import Tested, on_test_images, places

_SLICES = (
    "mIoU on held-out training images against each setting, a point for each trial that is done; above a panel the "
    "share of the trials' differences that the setting explains (fANOVA)."
)


def tuning_html(study: Study, runs: Sequence[Run]) -> Markup:
    """Return what a study tried, and what of `runs` are by its best settings and by the default ones on test images."""
    facts = [
        ("scenario", code(study.steps_told)),
        ("images", "held out of the training images"),
        ("seeds", seeds_text(study.asked["seeds"]).replace(" ", ", ")),
        ("sampler", code(f"{study.asked['sampler']}, seed {study.asked['seed']}")),
        ("study", code(study.digest)),
    ]
    done = any(study.best(strategy) for strategy in study.asked["strategies"])
    return joined(
        [
            definitions(facts),
            subsection("What was tried", boxed(html(_trials(study)), "Trials of each strategy")),
            subsection("Each setting", _slices(study)) if done else note("No trial is done yet."),
            subsection("The best settings on test images", _on_test(study, runs)),
        ]
    )


def _trials(study: Study) -> Table:
    rows = []
    for strategy in study.asked["strategies"]:
        trials, best = study.of(strategy), study.best(strategy)
        default = next((trial.miou for trial in trials if trial.number == 0), None)
        counts = [sum(trial.state == state for trial in trials) for state in ("done", "pruned", "failed")]
        settings = ", ".join(f"{name}={value}" for name, value in best.settings.items()) if best else "--"
        cells = [*map(str, counts), f"{sum(trial.seconds for trial in trials) / 60:.1f}"]
        mious = ["--" if miou is None else f"{miou:.2f}" for miou in (default, best.miou if best else None)]
        rows.append([Cell(strategy), *map(Cell, (*cells, *mious, settings))])
    wanted, limit = study.asked["trials"], study.asked.get("wall_time_minutes")
    budget = f"{wanted} trials of each strategy" + (f", at most {limit} minutes and the round begun" if limit else "")
    return Table(
        label="",
        header=["Methods", "done", "pruned", "failed", "minutes", "default", "best", "its settings"],
        rows=rows,
        gap="no trial",
        caption=f"The budget is {budget}; minutes are those of training and evaluation. default, best: mIoU (%) after "
        "the last of these steps, on held-out training images, the mean over seeds.",
    )


def _slices(study: Study) -> Markup:
    with tempfile.TemporaryDirectory() as folder:
        (path,) = write_slices(study, Path(folder), ["svg"])
        content = path.read_bytes()
    alt = f"Each setting, {study.steps_told}: {', '.join(study.asked['strategies'])}. {_SLICES}"
    return figure(svg_image(content, "slices", alt), f"Figure: each setting, {study.steps_told}", _SLICES)


def _on_test(study: Study, runs: Sequence[Run]) -> Markup:
    rows = on_test_images(study, runs)
    if not any(row.default or row.best for row in rows):
        return note(
            f"No finished run on the test images of {study.asked['scenario']} by the default or the best settings: "
            "bench tune --apply writes the latter for bench run --config."
        )
    order = places(rows)
    table = Table(
        label="",
        header=["Methods", "seeds", "default", "best", "best less default", "place by default", "place by best"],
        rows=[_test_row(row, order.get(row.strategy)) for row in rows],
        gap="no run",
        caption=" ".join(filter(None, _told(study, rows, order))),
    )
    return boxed(html(table), "The best settings beside the default ones on test images")


def _test_row(row: Tested, place: tuple[int, int] | None) -> list[Cell]:
    difference = paired(row.best, row.default)
    seeds = difference["seeds"].replace(" ", ", ") or "--"
    apart = Cell("the default is best") if row.kept else interval_cell(difference)
    ranks = [Cell("--" if place is None else str(each)) for each in (place or (0, 0))]
    return [Cell(row.strategy), Cell(seeds), _mean(row.default), _mean(row.best), apart, *ranks]


def _mean(by_seed: dict[int, float]) -> Cell:
    values = list(by_seed.values())
    if not values:
        return Cell("--")
    return Cell(f"{statistics.fmean(values):.2f}", f"{statistics.stdev(values):.2f}" if len(values) > 1 else "")


def _told(study: Study, rows: Sequence[Tested], order: dict[str, tuple[int, int]]) -> list[str]:
    scenario = study.asked["scenario"]
    remark = f" ({embedded_note(scenario)})" if embedded_note(scenario) else ""
    changed = any(before != after for before, after in order.values())
    change = f"The order of the methods {'changes' if changed else 'stays'}." if len(order) > 1 else ""
    return [
        f"mIoU (%) after the last step of `{scenario}`{remark} on test images, mean ± standard deviation over seeds.",
        "The difference is paired, over the common seeds, with its 95 % confidence interval (Student's t).",
        "No setting was chosen by these images.",
        "Places are by the means over the seeds that all have." if order else "",
        change,
    ]
