"""One HTML file with everything that finished runs tell: tables, figures, conventions, and how to repeat each run."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Iterable, Sequence
from pathlib import Path

from markupsafe import Markup

from reports.atomic import write_atomic
from reports.page.conventions import conventions_html
from reports.page.figures import figure3_html
from reports.page.parts import Section
from reports.page.runs import runs_html
from reports.page.scenario import scenario_html
from reports.page.summary import summary_html
from reports.page.tables import paper_tables_html, statistics_html
from reports.page.tuning import tuning_html
from reports.records import Run, Unfinished, run_order, runs_on, scenarios_of
from reports.study import Study
from reports.templating import rendered


def write_page(
    runs: Sequence[Run],
    out: Path,
    title: str | None = None,
    unfinished: Sequence[Unfinished] = (),
    study: Study | None = None,
) -> Path:
    """Write the file `out`, one HTML page that shows finished runs without any other file, and return it.

    It has the runs' headline numbers, those of the paper's tables that have runs (beside the published numbers on the
    real data sets), each scenario's figures, its pictures where runs kept predictions, its costs; differences to ours,
    ranks, conventions; and for every run the command that repeats it. What cannot be shown is a note that says why, and
    so is which runs are `unfinished`. Of a `study` it has what was tried, and the best settings beside the default.
    It asks nothing of the network, and reads without JavaScript, which only sorts tables and copies commands. The same
    runs in any order give the same bytes. `title` is by default made of the scenarios.
    """
    ordered = sorted(runs, key=run_order)
    sections = [each for each in _sections(ordered, unfinished, study) if each.body]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, _document(title or _title(ordered, study), _subtitle(ordered), sections))
    return out


def _sections(runs: Sequence[Run], unfinished: Sequence[Unfinished], study: Study | None) -> Iterable[Section]:
    yield Section("summary", "Summary", summary_html(runs, unfinished))
    yield Section("paper-tables", "The paper's tables", paper_tables_html(runs))
    yield Section("figure-3", "The paper's Figure 3", figure3_html(runs))
    for place, scenario in enumerate(scenarios_of(runs), start=1):
        name = f"scenario-{place}"
        yield Section(name, scenario, scenario_html(name, scenario, runs_on(scenario, runs)))
    yield Section("statistics", "Differences and ranks", statistics_html(runs))
    yield Section("tuning", "Tuning", tuning_html(study, runs) if study else Markup())
    yield Section("conventions", "Conventions and measures", conventions_html(runs))
    yield Section("runs", "Runs, and how to repeat them", runs_html(runs))


def _title(runs: Sequence[Run], study: Study | None) -> str:
    names = scenarios_of(runs) or ([study.asked["scenario"]] if study else [])
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
