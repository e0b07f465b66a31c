"""A scenario on the page: what its steps are made of, its figures and its costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from reports.conventions import recorded, require_one_convention
from reports.costs import COLUMNS, cost_table
from reports.division import EARLIER_DIVISION, by_earlier_division
from reports.files import RecordError
from reports.grids import memory_of
from reports.markup import html
from reports.notes import origin_notes, settings_note
from reports.page.figures import drawings_html
from reports.page.parts import boxed, codes, definitions, note, or_note, subsection
from reports.records import Run
from reports.tables import frame, summary
from reports.templating import joined


def scenario_html(name: str, scenario: str, runs: Sequence[Run]) -> Markup:
    """Return what a scenario is made of, its figures and its costs; `name` begins the ids in them.

    Figures need runs of one convention; a note says where these are not.
    """
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
    yield "classes", codes(" + ".join(str(len(step["classes"])) for step in own) for own in steps)
    for key, term in {"train_images": "training images", "test_images": "test images after each step"}.items():
        sign = " + " if key == "train_images" else ", "
        if all(key in step for own in steps for step in own):
            yield term, codes(sign.join(f"{step[key]:,}" for step in own) for own in steps)
    published = [run.spec["published_train_images"] for run in runs if run.spec.get("published_train_images")]
    if published:
        yield "published training images", codes(" + ".join(f"{size:,}" for size in own) for own in published)
    yield "split hash", codes(recorded(run.spec.get("split_hash")) for run in runs)
    yield "division", codes(_division(run) for run in runs)
    yield "memory", codes(f"{recorded(memory_of(run))} images" for run in runs)


def _division(run: Run) -> str:
    """How the run's images were divided among the steps."""
    return EARLIER_DIVISION if by_earlier_division(run.spec) else recorded(run.spec.get("division"))


def _costs(scenario: str, runs: Sequence[Run]) -> Markup:
    rows = summary(frame(runs))
    measured = [name for name in COLUMNS if (rows[name] > 0).any()]
    caption = " ".join(
        [
            "Milliseconds, passes and images passed forward per incoming batch, the mean over batches and seeds; "
            "the most images and MB in memory, the peak RAM of the process and the peak GPU memory of a step.",
            *filter(None, [settings_note(runs), *origin_notes(runs)]),
        ]
    )
    table = cost_table(rows, measured, label="", caption=caption)
    return boxed(html(table), f"Costs on {scenario}") if measured else Markup()
