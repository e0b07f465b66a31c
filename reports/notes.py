"""What is said of runs beside their numbers: how their settings differ, what made them.

Sentences are plain text with code between backticks, as in a table's caption.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from reports.conventions import UNKNOWN
from reports.division import division_note
from reports.records import Run, Unfinished, runs_on, scenarios_of
from reports.rows import (
    REFERENCES,
    differing_settings,
    method_of,
    natural_order,
    row_id,
    row_name,
    row_order,
    row_settings,
    seeds_text,
    variants,
)
from reports.spec import SCHEMA

IMIOU = "imIoU is the mean of the mIoU after steps 1..T, avg that after steps 0..T."
_NAMED = 5
"""Names in a list, of more their number is told."""
_AGAIN = "; `bench run --overwrite stale` makes the older again"
_DIGITS = 8
"""Of a digest."""

Groups = Mapping[str, Sequence[Run]]
"""Runs by what they do not share."""


def joined(names: Sequence[str]) -> str:
    """Return `a, b and c`, the first ones and the number of the others where they are many."""
    shown = _first(names)
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def _first(names: Sequence[str]) -> list[str]:
    return list(names) if len(names) <= _NAMED else [*names[:_NAMED], f"{len(names) - _NAMED} more"]


def code(text: object) -> str:
    """Return a text as code in a caption."""
    return "`" + str(text).replace("`", "'") + "`"


def notes(runs: Sequence[Run], beside: Collection[str] = ()) -> list[str]:
    """Return all that must be known of runs of any scenarios before their numbers are compared, as plain text.

    Runs may differ in the settings `beside`: what shows them tells these apart.
    """
    settings = {scenario: settings_note(runs_on(scenario, runs), beside) for scenario in scenarios_of(runs)}
    told = [f"{scenario}: {sentence}" for scenario, sentence in settings.items() if sentence]
    return [sentence.replace("`", "") for sentence in (*told, *origin_notes(runs))]


# ---------------------------------------------------------------- what is missing


def missing_notes(runs: Sequence[Run], unfinished: Sequence[Unfinished]) -> list[str]:
    """Return for each scenario with unfinished runs which they are, as plain text."""
    counts = Counter(run.spec["scenario"] for run in runs)
    scenarios = sorted({run.spec["scenario"] for run in unfinished})
    told = {scenario: unfinished_note(scenario, unfinished, counts[scenario]) for scenario in scenarios}
    return [f"{scenario}: {sentence.replace('`', '')}" for scenario, sentence in told.items()]


def unfinished_note(scenario: str, unfinished: Sequence[Unfinished], finished: int) -> str:
    """Return the sentence that names the runs of a scenario which are in no number, as they are not finished.

    They are named by strategy and seeds, the first ones where they are many; `finished` is the number of the others.
    '' where there are none.
    """
    own = runs_on(scenario, unfinished)
    if not own:
        return ""
    by_strategy: dict[str, list[int]] = {}
    for run in own:
        by_strategy.setdefault(run.spec["strategy"], []).append(run.spec["seed"])
    named = sorted(by_strategy, key=lambda strategy: row_order(strategy, ""))
    told = [f"{code(strategy)} {_seeds(by_strategy[strategy])}" for strategy in named]
    return f"{len(own)} of {finished + len(own)} runs are not finished and in no number: {'; '.join(_first(told))}."


def _seeds(seeds: Collection[int]) -> str:
    return f"seed{'s' if len(set(seeds)) > 1 else ''} {seeds_text(set(seeds)).replace(' ', ', ')}"


# ---------------------------------------------------------------- settings


def settings_note(runs: Sequence[Run], beside: Collection[str] = ()) -> str:
    """Return a sentence that names the settings in which the rows of one scenario differ.

    '' where they do not, or in nothing but the settings `beside`.
    """
    if not differing_settings(runs, beside):
        return ""
    by_row = row_settings(runs)
    groups = _grouped(runs, lambda run: by_row[row_id(run)])
    told = [
        f"{code(settings)} ({joined(list(dict.fromkeys(map(_label, groups[settings]))))})"
        for settings in sorted(groups, key=natural_order)
    ]
    return f"Trained under different settings, which no ranking may mix: {'; '.join(told)}."


def _label(run: Run) -> str:
    return str(run.spec["strategy"])


def marks_note(runs: Sequence[Run]) -> str:
    """Return the sentence that says how best and second are marked, and among which rows of one scenario."""
    among = " among rows of equal settings" if differing_settings(runs) else ""
    references = sorted({method_of(run.spec["strategy"]) for run in runs}.intersection(REFERENCES))
    apart = f", the references {' and '.join(references)} apart" if references else ""
    return f"Best in bold, second underlined{among}{apart}."


# ---------------------------------------------------------------- origins


def origin_notes(runs: Sequence[Run]) -> list[str]:
    """Return a sentence for each thing beside their settings that runs were not made alike by.

    That is the division of their images, the schema of their records, the code, the packages' versions, and the
    machine with its threads.
    """
    return [
        *filter(None, [division_note(runs), _schema_note(runs)]),
        *_difference("code versions", runs, _code_of, _AGAIN),
        *_method_notes(runs),
        *_difference("sets of package versions", runs, _differing_facts(runs, _versions)),
        *_difference("machines", runs, _differing_facts(runs, _machine)),
    ]


def _schema_note(runs: Sequence[Run]) -> str:
    older = sum(run.spec["schema"] != SCHEMA for run in runs)
    if not older:
        return ""
    were = "run was" if older == 1 else "runs were"
    return (
        f"{older} {were} written when imIoU meant the mean over steps 0..T: that number is read as avg, "
        "and imIoU is made of the mIoU of each step."
    )


def _difference(what: str, runs: Sequence[Run], told: Callable[[Run], str], remedy: str = "") -> list[str]:
    groups = _grouped(runs, told)
    if len(groups) < 2:
        return []
    return [f"Rows of {len(groups)} {what}: {_listed(groups, _row_names(runs))}{remedy}."]


def _code_of(run: Run) -> str:
    """The digest of the code that decides every run's numbers; of all code where that is not recorded."""
    return _short(run.spec.get("numbers_code") or run.spec.get("code"))


def _method_notes(runs: Sequence[Run]) -> list[str]:
    """A method's own code is no part of the common one: it is compared among the runs of the method."""
    by_method = _grouped(runs, lambda run: str(run.spec["method"].get("name")))
    return [
        note
        for method, own in by_method.items()
        for note in _difference(f"versions of the code of {code(method)}", own, _method_code, _AGAIN)
    ]


def _method_code(run: Run) -> str:
    plugins = run.spec.get("plugins") or []
    return ", ".join(_short(plugin.get("code")) for plugin in plugins if isinstance(plugin, dict)) or UNKNOWN


def _short(digest: object) -> str:
    return str(digest)[:_DIGITS] if digest else UNKNOWN


def _versions(run: Run) -> dict[str, Any]:
    return run.spec.get("versions") or {}


def _machine(run: Run) -> dict[str, Any]:
    runtime = run.spec["config"].get("runtime") or {}
    places = {"processor": run.spec, "platform": run.spec, "device": runtime, "threads": runtime}
    return {key: place[key] for key, place in places.items() if key in place}


def _differing_facts(runs: Sequence[Run], facts_of: Callable[[Run], Mapping[str, Any]]) -> Callable[[Run], str]:
    """What tells a run from the others: those of its facts that are not one in all of them."""
    facts = list(map(facts_of, runs))
    keys = dict.fromkeys(key for each in facts for key in each)
    differing = [key for key in keys if len({str(each.get(key)) for each in facts}) > 1]

    def told(run: Run) -> str:
        own = facts_of(run)
        return ", ".join(f"{key} {own[key]}" for key in differing if key in own) or UNKNOWN

    return told


# ---------------------------------------------------------------- lists


def _grouped(runs: Sequence[Run], told: Callable[[Run], str]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(told(run), []).append(run)
    return groups


def _listed(groups: Groups, name_of: Callable[[Run], str]) -> str:
    """Each group's common trait and, in brackets, its rows; a row in several groups with its seeds of this one."""
    return "; ".join(f"{code(trait)} ({joined(_names(trait, groups, name_of))})" for trait in groups)


def _names(trait: str, groups: Groups, name_of: Callable[[Run], str]) -> list[str]:
    others = _grouped([run for other, runs in groups.items() if other != trait for run in runs], name_of)
    return [_name(row, runs, others.get(row, [])) for row, runs in _grouped(groups[trait], name_of).items()]


def _name(row: str, runs: Sequence[Run], others: Sequence[Run]) -> str:
    """A row's name; if `others` of it are in another group with what tells these runs, their scenarios or seeds."""
    if not others:
        return row
    scenarios, seeds = ({run.spec[key] for run in runs} for key in ("scenario", "seed"))
    if scenarios.isdisjoint(run.spec["scenario"] for run in others):
        return f"{row} on {joined(sorted(scenarios))}"
    return (
        f"{row} seed {seeds_text(seeds)}" if seeds.isdisjoint(run.spec["seed"] for run in others) else f"some of {row}"
    )


def _row_names(runs: Sequence[Run]) -> Callable[[Run], str]:
    """The rows' labels; where a scenario has several rows of one label, with what tells these apart."""
    kin = _grouped(runs, lambda run: f"{run.spec['scenario']} {run.spec['strategy']}")
    names = {label: variants(own) for label, own in kin.items()}
    return lambda run: row_name(_label(run), names[f"{run.spec['scenario']} {_label(run)}"][row_id(run)])
