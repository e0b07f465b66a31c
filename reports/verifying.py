"""Whether finished runs are sound: their numbers follow from their own records, and they belong to one another."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reports.bundle import Manifest, unpack
from reports.conventions import require_one_convention
from reports.counts import counts_path
from reports.files import RecordError, csv_lines
from reports.records import Run, read_run, run_order, runs_on, scenarios_of
from reports.rows import RowId, row_id, row_settings
from reports.spec import SCHEMA, run_folder
from reports.steps import steps_text

_SHOWN = 3
"""Cells of one file that are named."""


@dataclass(frozen=True)
class Verified:
    """What a bundle holds, and a line for everything in it that is missing or does not fit; none where it is sound."""

    manifest: Manifest
    runs: list[Run]
    problems: list[str]


@contextmanager
def verified(bundle: Path) -> Iterator[Verified]:
    """Yield what a bundle holds, unpacked as long as the block lasts; raise RecordError for a file that is none."""
    with tempfile.TemporaryDirectory(prefix="bundle-") as scratch:
        folder = Path(scratch)
        manifest, problems = unpack(bundle, folder)
        runs, faults = _read(folder)
        problems += [*faults, *(problem for run in runs for problem in run_problems(run)), *problems_between(runs)]
        yield Verified(manifest, runs, [problem.replace(f"{folder}/", "") for problem in problems])


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield the folder of runs that `path` is; of a bundle that in which it is unpacked as long as the block lasts.

    Raises RecordError for another file, and for a bundle in which a file is not as its manifest says.
    """
    if not path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="bundle-") as scratch:
        _, problems = unpack(path, Path(scratch))
        if problems:
            more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
            raise RecordError(f"{path}: {problems[0]}{more}; `bench verify {path}` names all")
        yield Path(scratch)


def _read(folder: Path) -> tuple[list[Run], list[str]]:
    """The runs of an unpacked bundle that can be read, and why others cannot."""
    runs, faults = [], []
    for place in sorted({path.parent for path in folder.glob("*/*/*/*")}):
        try:
            run = read_run(place)
        except RecordError as error:
            faults.append(str(error))
            continue
        runs.append(run)
        if run_folder(folder, run.spec) != place:
            faults.append(f"{place}: its spec.yaml is that of {run_folder(Path(), run.spec)}")
    return sorted(runs, key=run_order), faults


# ---------------------------------------------------------------- one run


def run_problems(run: Run) -> list[str]:
    """Return a line for every record of a finished run that does not follow from the others, of its evaluations too."""
    problems = []
    for check in (_steps, _counts, _contours):
        try:
            problems += check(run)
        except RecordError as error:
            problems.append(str(error))
    for done in sorted(run.path.glob("evaluations/*/done")):
        try:
            problems += run_problems(read_run(done.parent))
        except RecordError as error:
            problems.append(str(error))
    return problems


def _steps(run: Run) -> list[str]:
    """`steps.csv` against the confusion matrices, every cell; one of schema 1 has other means and is read alone."""
    if run.spec["schema"] != SCHEMA:
        return []
    path = run.path / "steps.csv"
    found = csv_lines(path)
    header, *wanted = [line.split(",") for line in steps_text(run.spec, run.confusions).splitlines()]
    differing = [
        f"{path}: {column} of step {line[0]} is {cell or 'empty'}, the confusion matrices give {right or 'none'}"
        for line, rights in zip(found[1:], wanted, strict=True)
        for column, cell, right in zip(header, line, rights, strict=True)
        if cell != right
    ]
    more = len(differing) - _SHOWN
    return differing[:_SHOWN] + ([f"{path}: {more} more cells"] if more > 0 else [])


def _counts(run: Run) -> list[str]:
    """The complete counts, where there are any, give the confusion matrices; all are of the same pixels."""
    if not any(counts_path(run.path, int(row["step"])).is_file() for row in run.steps):
        return []
    first, *later = [_pixels(run, place) for place in range(len(run.counts))]
    differing = [step for step, pixels in enumerate(later, start=1) if pixels != first]
    names = [counts_path(run.path, int(run.steps[step]["step"])) for step in differing]
    return [f"{name}: its test images have other pixels than those of the first step" for name in names]


def _contours(run: Run) -> list[str]:
    _ = run.contours  # read, and refused where they are damaged
    _ = run.costs
    return []


def _pixels(run: Run, place: int) -> tuple[int, ...]:
    """The test images' pixels by their truth: every class of the scenario, unlearned ones, void."""
    counts = run.counts[place]
    return tuple(np.sum(counts.known + counts.others, axis=1).tolist())


# ---------------------------------------------------------------- runs beside each other


def problems_between(runs: Sequence[Run]) -> list[str]:
    """Return a line for everything in which the runs of a scenario do not belong to one another.

    Another convention, split or state of the data; other test pixels; a seed that only some rows of a table have.
    """
    problems = []
    for scenario in scenarios_of(runs):
        own = runs_on(scenario, runs)
        try:
            require_one_convention(own)
        except RecordError as error:
            problems.append(str(error))
        problems += [*_other_pixels(scenario, own), *_missing_seeds(scenario, own)]
    return problems


def _other_pixels(scenario: str, runs: Sequence[Run]) -> list[str]:
    pixels: dict[Path, tuple[int, ...]] = {}
    for run in runs:
        try:
            pixels[run.path] = _pixels(run, 0)
        except RecordError:  # named for itself, or of a time without counts
            continue
    if not pixels:
        return []
    usual = Counter(pixels.values()).most_common(1)[0][0]
    return [
        f"{path}: its test images have other pixels than those of {scenario}'s other runs"
        for path in _odd(pixels, usual)
    ]


def _odd(pixels: dict[Path, tuple[int, ...]], usual: tuple[int, ...]) -> list[Path]:
    return [path for path, own in pixels.items() if own != usual]


def _missing_seeds(scenario: str, runs: Sequence[Run]) -> list[str]:
    """The seeds that a row has not and another one of equal settings has."""
    settings = row_settings(runs)
    seeds: dict[RowId, set[int]] = {}
    every: dict[str, set[int]] = {}
    for run in runs:
        for known in (seeds.setdefault(row_id(run), set()), every.setdefault(settings[row_id(run)], set())):
            known.add(int(run.spec["seed"]))
    return [
        f"{scenario}: {strategy} ({run_hash}) has no run of seed {', '.join(map(str, sorted(missing)))}"
        for (strategy, run_hash), own in sorted(seeds.items())
        if (missing := every[settings[strategy, run_hash]] - own)
    ]
