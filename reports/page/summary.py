"""What a page begins with: what there are runs of, and each scenario's mean IoU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from reports.class_notes import classes_note
from reports.conventions import background_counts, recorded, require_one_convention
from reports.grids import MEMORY_SETTING, runs_by_memory
from reports.markup import Cell, Table, html
from reports.notes import IMIOU, marks_note, missing_notes, origin_notes, settings_note
from reports.page.parts import boxed, codes, definitions, note, or_note, subsection
from reports.records import Run, Unfinished, runs_on, scenarios_of
from reports.rows import NO_RUN, common_seeds, count_text, embedded_note, own_seeds, row_name, row_order, seeds_text
from reports.scenario_tables import cells
from reports.tables import MEASURES, frames_by_memory, group_breaks, ranked_groups, summary
from reports.templating import joined, part

if TYPE_CHECKING:
    import pandas as pd


def summary_html(runs: Sequence[Run], unfinished: Sequence[Unfinished]) -> Markup:
    """Return what there is of finished and `unfinished` runs, and the scenarios' tables of mean IoU."""
    missing = list(map(note, missing_notes(runs, unfinished)))
    if not runs:
        return joined([note(NO_RUN), *missing])
    strategies = sorted({run.spec["strategy"] for run in runs}, key=lambda name: row_order(name, ""))
    facts = [
        ("scenarios", codes(scenarios_of(runs), ", ")),
        ("strategies", codes(strategies, ", ")),
        ("seeds", seeds_text({run.spec["seed"] for run in runs}).replace(" ", ", ")),
        ("finished runs", str(len(runs))),
    ]
    tables = [_headline(scenario, runs_on(scenario, runs)) for scenario in scenarios_of(runs)]
    origins = [note(sentence.replace("`", "")) for sentence in origin_notes(runs)]
    return joined([definitions(facts), _embedded(runs), *missing, *origins, part("columns", tables)])


def _embedded(runs: Sequence[Run]) -> Markup:
    names = [scenario for scenario in scenarios_of(runs) if embedded_note(scenario)]
    sets = dict.fromkeys(name.split("-", 1)[0] for name in names)
    verb = "is generated data" if len(sets) == 1 else "are generated data"
    return note(f"{' and '.join(sets)} {verb}: results here are not VOC or ADE20K results.") if sets else Markup()


def _headline(scenario: str, runs: Sequence[Run]) -> Markup:
    """The scenario's tables of mean IoU, one for each size of memory."""

    def tables() -> Markup:
        require_one_convention(runs)
        frames = frames_by_memory(runs)
        apart = settings_note(runs, beside=[MEMORY_SETTING])
        return joined(
            _headline_table(scenario, own, memory, summary(frames[memory]), apart)
            for memory, own in runs_by_memory(runs).items()
        )

    return subsection(scenario, or_note(tables))


def _headline_table(scenario: str, runs: Sequence[Run], memory: Any, rows: pd.DataFrame, apart: str) -> Markup:
    common = common_seeds(rows["seeds"])
    groups = ranked_groups(rows)
    columns = [cells(rows, measure, groups) for measure in MEASURES]
    names = [
        Cell(row_name(row["strategy"], row["variant"]) + own_seeds(row["seeds"], common))
        for row in rows.to_dict("records")
    ]
    table = Table(
        label="",
        header=["Methods", *MEASURES.values()],
        rows=[list(row) for row in zip(names, *columns, strict=True)],
        gap=NO_RUN,
        caption=" ".join(filter(None, _headline_caption(runs, memory, common, apart))),
        breaks=group_breaks(rows),
    )
    return boxed(html(table), f"Mean IoU on {scenario}, memory {recorded(memory)}")


def _headline_caption(runs: Sequence[Run], memory: Any, common: str, apart: str) -> Iterable[str]:
    base, *later = (len(step["classes"]) for step in runs[0].spec["steps"])
    counted = background_counts(runs[0].spec["conventions"])
    scenario = runs[0].spec["scenario"]
    remark = f" ({embedded_note(scenario)})" if embedded_note(scenario) else ""
    yield f"Mean IoU (%) after the last step of `{scenario}`{remark}, memory {recorded(memory)}."
    old = f"{'the background and ' if counted else ''}{_classes(base, 'base')}"
    yield f"old: {old}; new: {_classes(sum(later), 'later')}. {IMIOU}"
    yield classes_note(runs)
    yield f"Mean ± standard deviation over seeds: {count_text(common)}." if " " in common else f"{count_text(common)}."
    yield apart
    yield marks_note(runs)
    yield from origin_notes(runs)


def _classes(count: int, kind: str) -> str:
    return f"{count} {kind} class{'' if count == 1 else 'es'}"
