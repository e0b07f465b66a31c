"""The conventions that numbers are counted by, chosen when they are printed: those of a code base, or single ones.

`under(runs, "mib")` returns the runs as that code would count them, from their complete counts; tables, figures and
frames made of these are then of that convention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reports.conventions import convention_text
from reports.counts import StepCounts, folded
from reports.files import RecordError
from reports.records import Run
from reports.spec import Spec
from reports.steps import Confusion, steps_rows

SWITCHES: dict[str, dict[str, Any]] = {
    "future_classes": {"background": "background", "ignore": "ignore"},
    "test_images": {"known": "known", "all": "all"},
    "label_0": {"background": "background", "void": "void"},
    "mean_classes": {"present": "present", "truth": "truth", "all": "all"},
    "background_in_mean": {"yes": True, "no": False},
}
"""What can be chosen at printing, and its values.

Label 0 is the background's, and that of ADE20K's other objects. A mean is over the classes with a pixel in truth or
prediction, over those with one in the truth, or over all: an absent one is 0.
"""
OWN = {"label_0": "background", "mean_classes": "present"}
"""What a run's own conventions are where its spec has nothing else."""
EVALUATED = {
    **dict.fromkeys(("short_side", "crop", "resolution"), "evaluation.short_side"),
    "size": "data.size",
    **dict.fromkeys(("stream", "evaluate_on"), "evaluation.stream"),
}
"""What only another evaluation can give, by the setting that it is asked for by."""


@dataclass(frozen=True)
class CodeBase:
    """What a published code base counts by (`every` data set, `ade` where it differs there), read in its `source`."""

    source: str
    every: Mapping[str, Any]
    ade: Mapping[str, Any]


CODE_BASES = {
    "em": CodeBase(
        source="the paper of `ours`, Sec. 3.1 and 4.1, as METHODS has it",
        every={
            "future_classes": "background",
            "test_images": "known",
            "label_0": "background",
            "mean_classes": "present",
            "background_in_mean": True,
        },
        ade={},
    ),
    "mib": CodeBase(
        source="fcdl94/MiB: dataset/voc.py, dataset/ade.py, metrics/stream_metrics.py (`mask = gt_sum != 0`); "
        "its printed columns are without the background (fcdl94/WILSON#2)",
        every={
            "future_classes": "ignore",
            "test_images": "known",
            "label_0": "background",
            "mean_classes": "truth",
            "background_in_mean": False,
        },
        ade={"label_0": "void"},
    ),
    "plop": CodeBase(
        source="arthurdouillard/CVPR2021_PLOP: dataset/voc.py, dataset/ade.py (without --ignore_test_bg), "
        "metrics/stream_metrics.py, average_csv.py; RCIL, EWF and NeST alike",
        every={
            "future_classes": "background",
            "test_images": "known",
            "label_0": "background",
            "mean_classes": "truth",
            "background_in_mean": True,
        },
        ade={},
    ),
    "ssul": CodeBase(
        source="clovaai/SSUL: datasets/voc.py, datasets/ade.py, metrics/stream_metrics.py; MicroSeg alike",
        every={
            "future_classes": "ignore",
            "test_images": "all",
            "label_0": "background",
            "mean_classes": "all",
            "background_in_mean": True,
        },
        ade={},
    ),
    "dkd": CodeBase(
        source="cvlab-yonsei/DKD: data_loader/dataset.py (masking value 0 on VOC, 255 on ADE20K); STAR alike",
        every={
            "future_classes": "background",
            "test_images": "known",
            "label_0": "background",
            "mean_classes": "all",
            "background_in_mean": True,
        },
        ade={"future_classes": "ignore"},
    ),
}
"""By the names that `--convention` takes. Resolution and the data's void are the run's: all leave void out."""


class ConventionError(ValueError):
    """A convention that is asked for and that there is not, or that no record can give: one line."""


@dataclass(frozen=True)
class Choice:
    """A convention that is asked for: a code base's, if one is named, and the switches over it."""

    text: str
    code_base: CodeBase | None
    switches: Mapping[str, Any]

    def over(self, spec: Spec) -> dict[str, Any]:
        """Return all conventions of a run, the chosen ones in the place of its own."""
        named = self.code_base
        on_ade = named.ade if named and _data_set(spec) == "ade" else {}
        return {
            **OWN,
            **spec["conventions"],
            **(named.every if named else {}),
            **on_ade,
            **self.switches,
            "counted_as": self.text,
        }


def parse_choice(text: str) -> Choice:
    """Return what `mib`, `mib,background_in_mean=yes` or `test_images=all` asks for; raise ConventionError."""
    names = [part for part in text.split(",") if "=" not in part]
    if len(names) > 1 or any(name not in CODE_BASES for name in names):
        raise ConventionError(f"{text}: a name is one of {', '.join(CODE_BASES)}; {_known()}")
    switches = dict(_switch(text, part) for part in text.split(",") if "=" in part)
    return Choice(text, CODE_BASES[names[0]] if names else None, switches)


def _switch(text: str, part: str) -> tuple[str, Any]:
    key, _, value = part.partition("=")
    if key in EVALUATED:
        raise ConventionError(
            f"{text}: only another evaluation gives {key}: `bench evaluate RUN_DIR --set {EVALUATED[key]}={value}`"
        )
    if key not in SWITCHES:
        raise ConventionError(f"{text}: there is no {key}; {_known()}")
    if value not in SWITCHES[key]:
        raise ConventionError(f"{text}: {key} is {' or '.join(SWITCHES[key])}, not {value!r}")
    return key, SWITCHES[key][value]


def _known() -> str:
    return "switches are " + ", ".join(f"{key}={'|'.join(values)}" for key, values in SWITCHES.items())


def _data_set(spec: Spec) -> str:
    return str(spec["scenario"]).partition("-")[0]


# ---------------------------------------------------------------- runs


@dataclass(frozen=True)
class CountedRun(Run):
    """A run whose numbers are counted by other conventions than its own."""

    matrices: tuple[Confusion, ...] = ()

    @cached_property
    def confusions(self) -> list[Confusion]:
        """The confusion matrix of every row of `steps`, in pixels."""
        return list(self.matrices)

    @cached_property
    def last_confusion(self) -> Confusion:
        """The confusion matrix after the last step, in pixels."""
        return self.matrices[-1]


def under(runs: Sequence[Run], choice: str | Choice | None) -> list[Run]:
    """Return runs as a convention counts them, as they are for None.

    Their spec's `conventions` tell it. Numbers have the four decimals that `steps.csv` has. Raises ConventionError, and
    RecordError for a run that cannot give it, as it has no complete counts.
    """
    if choice is None:
        return list(runs)
    chosen = parse_choice(choice) if isinstance(choice, str) else choice
    return [_counted(run, chosen) for run in runs]


def by_conventions(run: Run, asked: Mapping[str, Any]) -> Run:
    """Return a run by the conventions of a spec that asks for it: as it is, but for what is chosen at printing."""
    own = run.spec["conventions"]
    differing = {key: asked[key] for key in ("future_classes", "test_images") if asked[key] != own.get(key, asked[key])}
    text = ",".join(f"{key}={value}" for key, value in differing.items())
    return _counted(run, parse_choice(text)) if differing else run


def _counted(run: Run, choice: Choice) -> Run:
    conventions = choice.over(run.spec)
    spec = {**run.spec, "conventions": conventions}
    matrices = _matrices(run, conventions)
    rows = [{key: round(value, 4) for key, value in row.items()} for row in steps_rows(spec, matrices)]
    return CountedRun(run.path, spec, rows, tuple(matrices))


def _matrices(run: Run, conventions: Mapping[str, Any]) -> list[Confusion]:
    """A run's matrices under conventions: its own where these count the same pixels."""
    own = {**OWN, **run.spec["conventions"]}
    differing = [key for key in ("future_classes", "test_images", "label_0") if conventions[key] != own.get(key)]
    if not differing:
        return run.confusions
    try:
        return [confusion_under(counts, conventions) for counts in run.counts]
    except RecordError as error:
        asked = ", ".join(f"{key} {convention_text(conventions[key])}" for key in differing)
        raise RecordError(f"{asked} is not to be had: {error}") from None


def confusion_under(counts: StepCounts, conventions: Mapping[str, Any]) -> Confusion:
    """Return the confusion matrix (outputs, outputs) of a step under conventions; void never counts.

    Pixels of label 0 are left out where it is void, not those of future classes that count as the background.
    """
    if conventions["label_0"] == "void":
        counts = StepCounts(*(_without_label_0(rows) for rows in (counts.known, counts.others)))
    return folded(counts, conventions["future_classes"], conventions["test_images"])


def _without_label_0(rows: Confusion) -> Confusion:
    rows = rows.copy()
    rows[0] = 0
    return rows
