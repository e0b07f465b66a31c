"""What `bench data check` prints: counts, class frequencies, step sizes, each fault, examples of each warning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.errors import printable
from benchmarks.imageset import SPLITS
from benchmarks.obtain.report import ClassFrequency, Report, SaliencyMaps, StepSizes

EXAMPLES = 5
"""Files that no list names that are told by name, of each folder; and warnings of each kind."""


def print_report(report: Report, console: Console) -> None:
    """Print a report, its tables with rules and colours on a terminal; the last line says whether all is sound."""
    _say(console, f"{report.dataset}: {report.root}")
    _print_counts(report, console)
    if report.frequencies:
        _print_frequencies(report.frequencies, console)
    if report.sizes:
        _print_sizes(report, console)
    for kind, faults in report.faults_by_kind.items():
        console.print()
        _say(console, f"{len(faults)} x {kind.value}")
        for fault in faults:
            _say(console, f"  {fault}")
    for kind, warnings in report.warnings_by_kind.items():
        console.print()
        _say(console, f"warning: {len(warnings)} x {kind.value}")
        for warning in warnings[:EXAMPLES]:
            _say(console, f"  {warning}")
        if len(warnings) > EXAMPLES:
            _say(console, f"  ... and {len(warnings) - EXAMPLES} more, which --json names")
    _print_saliency(report.saliency, report.splits["train"].listed, console)
    console.print()
    _say(console, _verdict(report))


def _verdict(report: Report) -> str:
    warned = f", {_counted(len(report.warnings), 'warning')}" if report.warnings else ""
    if report.faults:
        return f"{_counted(len(report.faults), 'fault')} of {_counted(len(report.faults_by_kind), 'kind')}{warned}"
    train, test = (report.splits[split].listed for split in SPLITS)
    return f"sound{warned}: {train} training and {test} test images"


def _print_counts(report: Report, console: Console) -> None:
    rows = [
        (split, n.listed, n.found, n.sound_label_maps, "--" if n.published is None else n.published)
        for split, n in report.splits.items()
    ]
    _print_table(console, "images", ["split", "listed", "found", "sound label maps", "published"], rows)
    for split, counts in report.splits.items():
        if counts.published not in (None, counts.listed):
            _say(console, f"note: the {split} split has {counts.listed} images, published are {counts.published}")
    if report.list_remark:
        _say(console, f"note: {report.list_remark}")
    for folder, names in report.unlisted.items():
        examples = printable(", ".join(names[:EXAMPLES])) + (", ..." if len(names) > EXAMPLES else "")
        _say(console, f"note: no list names {_counted(len(names), 'file')} of {folder}: {examples}")


def _print_frequencies(frequencies: Sequence[ClassFrequency], console: Console) -> None:
    pixels = max(1, sum(sum(frequency.pixels.values()) for frequency in frequencies))
    rows = [
        (f.label, f.name, *(f.images[split] for split in SPLITS), f"{100 * sum(f.pixels.values()) / pixels:.2f}")
        for f in frequencies
    ]
    columns = ["label", "class", "train images", "test images", "% of pixels"]
    _print_table(console, "class frequencies in the sound label maps", columns, rows, text_columns=(1,))


def _print_sizes(report: Report, console: Console) -> None:
    train = report.splits["train"]
    rows = [row for sizes in report.sizes for row in _size_rows(sizes)]
    columns = ["scenario", "step", "published", "computed", "agreement"]
    _print_table(console, "training images per step", columns, rows, text_columns=(0, 4))
    if train.sound_label_maps < train.listed:
        sound = f"{train.sound_label_maps} of {train.listed}"
        _say(console, f"note: the sizes are computed from the {sound} training label maps that are sound")


def _size_rows(sizes: StepSizes) -> list[tuple[object, ...]]:
    pairs = zip(sizes.published, sizes.computed, strict=True)
    return [
        (sizes.scenario, step, published, computed, "ok" if published == computed else "differs")
        for step, (published, computed) in enumerate(pairs)
    ]


def _print_saliency(maps: SaliencyMaps, images: int, console: Console) -> None:
    console.print()
    if not maps.there:
        _say(console, f"note: no saliency maps, which ssul reads: there is no folder {maps.folder}")
        return
    lacking = f"no map of {len(maps.lacking)}: " + ", ".join(maps.lacking[:EXAMPLES]) if maps.lacking else "all there"
    _say(console, f"note: saliency maps of {images} training images in {maps.folder}: {lacking}")
    for fault in maps.unusable:
        _say(console, f"note: {fault}")


def _print_table(
    console: Console,
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    text_columns: Sequence[int] = (0,),
) -> None:
    table = Table(
        title=title,
        title_justify="left",
        box=SIMPLE if console.is_terminal else None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place in text_columns else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console.print()
    console.print(table)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
