"""One HTML file with everything that finished runs tell: tables, figures, conventions, and how to repeat each run."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from reports.atomic import write_atomic
from reports.class_notes import classes_note
from reports.conventions import UNKNOWN, background_counts, convention_text, require_one_convention
from reports.division import EARLIER_DIVISION, by_earlier_division
from reports.files import RecordError
from reports.grids import MEMORY_SETTING, grid, memory_of, need_of, needed, runs_by_memory
from reports.markup import Cell, Table, html
from reports.notes import IMIOU, marks_note, missing_notes, origin_notes, settings_note
from reports.numbered import write_numbered
from reports.page.figures import drawings_html, figure3_html
from reports.page.parts import Section, boxed, code, definitions, note, or_note, subsection, tables_of
from reports.page.runs import runs_html
from reports.records import Run, Unfinished, run_order, runs_on, scenarios_of
from reports.rows import (
    NO_RUN,
    REFERENCES,
    common_seeds,
    count_text,
    embedded_note,
    method_of,
    own_seeds,
    row_name,
    row_order,
    seeds_text,
)
from reports.scenario_tables import cells
from reports.statistics_tables import write_statistics
from reports.tables import MEASURES, frame, frames_by_memory, group_breaks, ranked_groups, summary
from reports.templating import joined, part, rendered

if TYPE_CHECKING:
    import pandas as pd

_COSTS: dict[str, tuple[str, float, int]] = {
    "seconds_per_batch": ("ms", 1e3, 1),
    "forward_per_batch": ("forward", 1, 2),
    "backward_per_batch": ("backward", 1, 2),
    "images_per_batch": ("images", 1, 1),
    "memory_images": ("kept", 1, 0),
    "memory_bytes": ("memory MB", 1e-6, 2),
    "peak_ram_bytes": ("RAM MB", 1e-6, 0),
    "peak_gpu_bytes": ("GPU MB", 1e-6, 0),
}
"""Header, factor and decimals of the summary's columns."""
_MEANINGS = {
    ("future_classes", "background"): "pixels of classes not yet learned count as background in the truth",
    ("future_classes", "ignore"): "pixels of classes not yet learned are void: no measure counts them",
    ("test_images", "known"): "a step is tested on the images that show a class learned by then",
    ("test_images", "all"): "every step is tested on all images",
    ("background_in_mean", "yes"): "the background is one of the classes in old, all, imIoU and avg",
    ("background_in_mean", "no"): "the background is left out of old, all, imIoU and avg",
    ("resolution", ""): "the size at which predictions are compared with the truth",
    ("evaluate_on", "test"): "measured on the test images",
    ("evaluate_on", "valid"): "measured on training images held out from training, not on the test images",
}
"""What a convention's value means; the value '' stands for any."""
_MEASURES = {
    "IoU": "of a class: pixels that are of it and predicted so, over those that are either, over all test images",
    "all (mIoU)": "the mean IoU of the classes learned so far; one without a pixel in truth and prediction is left out",
    "old, new": "the mean IoU of the classes of the first step, and of those learned later, after the last step",
    "imIoU": "the mean of the mIoU after each step but the first: the increments 1..T",
    "avg": "the mean of the mIoU after each step, the first one counted: 0..T, as the offline literature has it",
    "forgetting": "the mean over earlier steps' classes of their best mIoU before less that after the step, in points",
    "backward transfer": "the mean over earlier steps' classes of their mIoU less that when learned, in points",
    "±": "the sample standard deviation over seeds",
}


def write_page(runs: Sequence[Run], out: Path, title: str | None = None, unfinished: Sequence[Unfinished] = ()) -> Path:
    """Write the file `out`, one HTML page that shows finished runs without any other file, and return it.

    It has the runs' headline numbers, those of the paper's tables that have runs (beside the published numbers on the
    real data sets), each scenario's figures, its pictures where runs kept predictions, its costs; differences to ours,
    ranks, conventions; and for every run the command that repeats it. What cannot be shown is a note that says why, and
    so is which runs are `unfinished`.
    It asks nothing of the network, and reads without JavaScript, which only sorts tables and copies commands. The same
    runs in any order give the same bytes. `title` is by default made of the scenarios.
    """
    ordered = sorted(runs, key=run_order)
    sections = [each for each in _sections(ordered, unfinished) if each.body]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, _document(title or _title(ordered), _subtitle(ordered), sections))
    return out


def _sections(runs: Sequence[Run], unfinished: Sequence[Unfinished]) -> Iterable[Section]:
    yield Section("summary", "Summary", _summary(runs, unfinished))
    yield Section("paper-tables", "The paper's tables", joined(_paper_tables(runs)))
    yield Section("figure-3", "The paper's Figure 3", figure3_html(runs))
    for place, scenario in enumerate(scenarios_of(runs), start=1):
        name = f"scenario-{place}"
        yield Section(name, scenario, _scenario(name, scenario, runs_on(scenario, runs)))
    yield Section("statistics", "Differences and ranks", _statistics(runs))
    yield Section("conventions", "Conventions and measures", _conventions(runs))
    yield Section("runs", "Runs, and how to repeat them", runs_html(runs))


# ---------------------------------------------------------------- the document


def _title(runs: Sequence[Run]) -> str:
    names = scenarios_of(runs)
    return f"Continual segmentation on {names[0] if len(names) == 1 else f'{len(names)} scenarios'}"


def _subtitle(runs: Sequence[Run]) -> str:
    counts = {
        "finished run": len(runs),
        "scenario": len(scenarios_of(runs)),
        "strategy": len({run.spec["strategy"] for run in runs}),
        "seed": len({run.spec["seed"] for run in runs}),
    }
    return ", ".join(f"{count} {_plural(name, count)}" for name, count in counts.items())


def _plural(name: str, count: int) -> str:
    return name if count == 1 else f"{name.removesuffix('y')}ies" if name.endswith("y") else f"{name}s"


def _document(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    style, script = _asset("page.css"), _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return rendered(
        "page.html", title=title, subtitle=subtitle, sections=sections, style=style, script=script, digest=digest
    )


def _asset(name: str) -> str:
    return (importlib.resources.files("reports.page") / name).read_text(encoding="utf-8")


# ---------------------------------------------------------------- summary


def _summary(runs: Sequence[Run], unfinished: Sequence[Unfinished]) -> Markup:
    missing = list(map(note, missing_notes(runs, unfinished)))
    if not runs:
        return joined([note(NO_RUN), *missing])
    facts = [
        ("scenarios", _names(run.spec["scenario"] for run in runs)),
        ("strategies", _names(sorted((run.spec["strategy"] for run in runs), key=lambda name: row_order(name, "")))),
        ("seeds", seeds_text({run.spec["seed"] for run in runs}).replace(" ", ", ")),
        ("finished runs", str(len(runs))),
    ]
    tables = [_headline(scenario, runs_on(scenario, runs)) for scenario in scenarios_of(runs)]
    origins = [note(sentence.replace("`", "")) for sentence in origin_notes(runs)]
    return joined([definitions(facts), _embedded(runs), *missing, *origins, part("columns", tables)])


def _names(names: Iterable[str]) -> Markup:
    return joined(map(code, dict.fromkeys(names)), ", ")


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
    names = [Cell(_name(row) + own_seeds(row["seeds"], common)) for row in rows.to_dict("records")]
    table = Table(
        label="",
        header=["Methods", *MEASURES.values()],
        rows=[list(row) for row in zip(names, *columns, strict=True)],
        gap=NO_RUN,
        caption=" ".join(filter(None, _headline_caption(runs, memory, common, apart))),
        breaks=group_breaks(rows),
    )
    return boxed(html(table), f"Mean IoU on {scenario}, memory {_told(memory)}")


def _headline_caption(runs: Sequence[Run], memory: Any, common: str, apart: str) -> Iterable[str]:
    base, *later = (len(step["classes"]) for step in runs[0].spec["steps"])
    counted = background_counts(runs[0].spec["conventions"])
    scenario = runs[0].spec["scenario"]
    remark = embedded_note(scenario)
    yield f"Mean IoU (%) after the last step of `{scenario}`{f' ({remark})' if remark else ''}, memory {_told(memory)}."
    old = f"{'the background and ' if counted else ''}{_classes(base, 'base')}"
    yield f"old: {old}; new: {_classes(sum(later), 'later')}. {IMIOU}"
    yield classes_note(runs)
    yield f"Mean ± standard deviation over seeds: {count_text(common)}." if " " in common else f"{count_text(common)}."
    yield apart
    yield marks_note(runs)
    yield from origin_notes(runs)


def _classes(count: int, kind: str) -> str:
    return f"{count} {kind} class{'' if count == 1 else 'es'}"


def _name(row: Mapping[Any, Any]) -> str:
    return row_name(row["strategy"], row["variant"])


def _number(value: float, decimals: int) -> str:
    return "--" if math.isnan(value) else f"{value:.{decimals}f}"


def _told(value: object) -> str:
    return UNKNOWN if value is None else str(value)


# ---------------------------------------------------------------- the paper's tables and its figure


def _paper_tables(runs: Sequence[Run]) -> Iterable[Markup]:
    for number in (1, 2, 3, 4):
        for on in ("voc", "shapes"):
            chosen = grid(number, on)
            wanted = set(needed(number, on))
            own = [run for run in runs if need_of(run) in wanted]
            if own:
                title = f"Table {number} on {chosen.dataset}"
                yield subsection(title, *_paper_table(number, own, on, compare=not chosen.embedded))


def _paper_table(number: int, runs: Sequence[Run], on: str, compare: bool) -> Iterable[Markup]:
    yield or_note(lambda: _numbered(number, runs, on, compare=False))
    if compare:
        yield or_note(lambda: _numbered(number, runs, on, compare=True))


def _numbered(number: int, runs: Sequence[Run], on: str, compare: bool) -> Markup:
    with tempfile.TemporaryDirectory() as folder:
        (path,) = write_numbered([number], runs, Path(folder), ["html"], on, compare)
        (table,) = tables_of(path.read_text(encoding="utf-8"))
    label = f"Table {number}{' beside the published numbers' if compare else ''}"
    return boxed(table, label, sortable=not compare)  # a method's three rows belong together


# ---------------------------------------------------------------- a scenario


def _scenario(name: str, scenario: str, runs: Sequence[Run]) -> Markup:
    """What the scenario is made of, its figures and its costs; figures need runs of one convention."""
    facts = definitions(_stream(runs))
    try:
        require_one_convention(runs)
    except RecordError as error:
        return joined([facts, note(f"No figures: {error}")])
    return joined(
        [facts, drawings_html(name, scenario, runs), subsection("Costs", or_note(lambda: _costs(scenario, runs)))]
    )


def _stream(runs: Sequence[Run]) -> Iterable[tuple[str, str]]:
    """The steps' sizes; where the runs' splits differ (a split may depend on the seed) each of them."""
    steps = [run.spec["steps"] for run in runs]
    yield "classes", _different(" + ".join(str(len(step["classes"])) for step in own) for own in steps)
    for key, term in {"train_images": "training images", "test_images": "test images after each step"}.items():
        sign = " + " if key == "train_images" else ", "
        if all(key in step for own in steps for step in own):
            yield term, _different(sign.join(f"{step[key]:,}" for step in own) for own in steps)
    published = [run.spec["published_train_images"] for run in runs if run.spec.get("published_train_images")]
    if published:
        yield "published training images", _different(" + ".join(f"{size:,}" for size in own) for own in published)
    yield "split hash", _different(str(run.spec.get("split_hash", UNKNOWN)) for run in runs)
    yield "division", _different(_division(run) for run in runs)
    yield "memory", _different(f"{_told(memory_of(run))} images" for run in runs)


def _division(run: Run) -> str:
    """How the run's images were divided among the steps."""
    return EARLIER_DIVISION if by_earlier_division(run.spec) else str(run.spec.get("division", UNKNOWN))


def _different(texts: Iterable[str]) -> Markup:
    return joined(map(code, dict.fromkeys(texts)), "; ")


def _costs(scenario: str, runs: Sequence[Run]) -> Markup:
    rows = summary(frame(runs))
    measured = {name: column for name, column in _COSTS.items() if (rows[name] > 0).any()}
    table = Table(
        label="",
        header=["Methods", *(header for header, _, _ in measured.values())],
        rows=[
            [Cell(_name(row)), *(_cost(row[name], *column[1:]) for name, column in measured.items())]
            for row in rows.to_dict("records")
        ],
        gap=NO_RUN,
        caption=" ".join(
            [
                "Milliseconds, passes and images passed forward per incoming batch, the mean over batches and seeds; "
                "the most images and MB in memory, the peak RAM of the process and the peak GPU memory of a step.",
                *filter(None, [settings_note(runs), *origin_notes(runs)]),
            ]
        ),
        breaks=group_breaks(rows),
    )
    return boxed(html(table), f"Costs on {scenario}") if measured else Markup()


def _cost(value: float, factor: float, decimals: int) -> Cell:
    return Cell(_number(factor * value, decimals))


# ---------------------------------------------------------------- statistics


def _statistics(runs: Sequence[Run]) -> Markup:
    """Differences and ranks over the scenarios whose runs share their conventions."""
    sound: list[Run] = []
    left_out: list[str] = []
    for scenario in scenarios_of(runs):
        own = runs_on(scenario, runs)
        try:
            require_one_convention(own)
            sound += own
        except RecordError as error:
            left_out.append(note(f"{scenario} is left out: {error}"))
    return joined([*left_out, or_note(lambda: _differences(sound)), or_note(lambda: _ranks(sound))])


def _differences(runs: Sequence[Run]) -> Markup:
    """Of the scenarios and memories that have a run of ours."""
    having = {(run.spec["scenario"], memory_of(run)) for run in runs if run.spec["strategy"] == "ours"}
    own = [run for run in runs if (run.spec["scenario"], memory_of(run)) in having]
    return subsection("Paired differences to ours", *_statistics_tables(own, "differences"))


def _ranks(runs: Sequence[Run]) -> Markup:
    plain = {run.spec["strategy"] for run in runs if run.spec["strategy"] == method_of(run.spec["strategy"])}
    if len(plain.difference(REFERENCES)) < 2:
        return Markup()
    return subsection("Mean ranks", *_statistics_tables(runs, "ranks"))


def _statistics_tables(runs: Sequence[Run], kind: str) -> Iterable[Markup]:
    with tempfile.TemporaryDirectory() as folder:
        for path in write_statistics(runs, Path(folder), ["html"]):
            if path.stem.startswith(kind):
                for table in tables_of(path.read_text(encoding="utf-8")):
                    yield boxed(table, path.stem.replace("-", " "))


# ---------------------------------------------------------------- conventions


def _conventions(runs: Sequence[Run]) -> Markup:
    keys = dict.fromkeys(key for run in runs for key in run.spec["conventions"])
    kept = subsection("Conventions", definitions((key.replace("_", " "), _convention(key, runs)) for key in keys))
    return joined([kept, subsection("Measures", definitions(_MEASURES.items()))]) if runs else Markup()


def _convention(key: str, runs: Sequence[Run]) -> Markup:
    """Each value of a convention, what it means, and where values differ the scenarios with runs of it."""
    holders: dict[str, list[str]] = {}
    for run in runs:
        holders.setdefault(convention_text(run.spec["conventions"].get(key, UNKNOWN)), []).append(run.spec["scenario"])
    told = [
        (value, _names(own) if len(holders) > 1 else "", _MEANINGS.get((key, value), _MEANINGS.get((key, ""), "")))
        for value, own in holders.items()
    ]
    return part("convention", told)
