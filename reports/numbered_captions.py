"""What the captions of the paper's numbered tables say: seeds, conventions, settings, and what a mark means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from reports.class_notes import classes_note, every_class_counts
from reports.conventions import background_counts, convention_text
from reports.filled_grids import BESIDE, Number
from reports.grids import Block, Grid, Row
from reports.notes import origin_notes, settings_note
from reports.numbered_layout import GAP, ODD
from reports.records import Run
from reports.rows import common_seeds, count_text, differing_settings, embedded_note


def numbered_caption(chosen: Grid, rows: Sequence[Sequence[Number]], compare: bool) -> list[str]:
    """Return the sentences of a table's caption, code between backticks."""
    note = embedded_note(chosen.dataset)
    on = f"`{chosen.dataset}`{f' ({note})' if note else ''}"
    sentences = [f"The paper's Table {chosen.table} on {on}: {chosen.layout.title}."]
    sizes = {block.memory for block in chosen.layout.blocks}
    if len(sizes) == 1:
        sentences.append(f"Memory: {sizes.pop()} images.")
    if any("*" in name for row in chosen.layout.rows for name in row.names):
        sentences.append("*: a method without a memory of its own, applied to incoming and memory images alike.")
    measured = [number for row in rows for number in row if number.by_seed]
    if len(measured) < sum(map(len, rows)):
        sentences.append(f"`{GAP}`: no finished run.")
    if measured:
        sentences += _facts(measured)
    if any(column == "imiou" for block in chosen.layout.blocks for column, _ in block.columns):
        sentences.append("imIoU: the mean of the mIoU after steps 1..T, the base step left out.")
    if compare:
        sentences.append("Rows `published`: the paper's numbers; rows `difference`: ours minus the paper's.")
    return sentences


def _facts(measured: Sequence[Number]) -> list[str]:
    """Over which seeds the measured numbers are means, by which conventions, and how the best are marked."""
    common = common_seeds([number.seeds for number in measured])
    kind = "Mean and standard deviation over seeds" if any(len(n.by_seed) > 1 for n in measured) else "One seed"
    others = _other_seeds(measured, common)
    but = f", but {'; '.join(others)}" if others else ""
    conventions = measured[0].conventions
    told = "; ".join(f"{key.replace('_', ' ')} `{convention_text(conventions[key])}`" for key in sorted(conventions))
    runs = _runs_of(measured)
    by_block = {
        block: _runs_of([number for number in measured if number.block.split == block.split])
        for block in _blocks(measured)
    }
    apart = [differing_settings(own, BESIDE) for own in by_block.values()]
    unless = f" where all rows share their settings; {ODD}: others than most" if any(apart) else ""
    return [
        f"{kind}: {count_text(common)}{but}.",
        f"Conventions: {told}.",
        *_of_blocks({block: settings_note(own, BESIDE) for block, own in by_block.items()}),
        *_class_notes(by_block),
        f"Best in bold, second underlined{unless}.",
        *origin_notes(runs),
    ]


def _blocks(numbers: Sequence[Number]) -> list[Block]:
    return list(dict.fromkeys(number.block for number in numbers))


def _runs_of(numbers: Iterable[Number]) -> list[Run]:
    """The runs behind numbers, each once."""
    return list({run.path: run for number in numbers for run in number.runs}.values())


def _class_notes(by_block: Mapping[Block, Sequence[Run]]) -> list[str]:
    """Over how many classes the means are: once for all blocks that have every class."""
    whole = [block for block, runs in by_block.items() if every_class_counts(runs)]
    others = {block: classes_note(runs) for block, runs in by_block.items() if block not in whole}
    if not whole:
        return _of_blocks(others)
    spec = by_block[whole[0]][0].spec
    counted = background_counts(spec["conventions"])
    size = len(spec["class_names"]) - (not counted)
    among = "with" if counted else "without"
    rest = " but where told otherwise" if others else ""
    return [f"`all` is the mean of all {size} classes {among} the background{rest}.", *_of_blocks(others)]


def _of_blocks(notes: Mapping[Block, str]) -> list[str]:
    """Each note after the blocks of columns that it is about."""
    about: dict[str, list[str]] = {}
    for block, note in notes.items():
        if note:
            about.setdefault(note, []).append(" ".join(block.headings))
    return [f"{', '.join(headings)}: {note}" if any(headings) else note for note, headings in about.items()]


def _other_seeds(measured: Sequence[Number], common: str) -> list[str]:
    """What to say of the cells with other seeds: of a whole block of columns at once, else row by row."""
    told: list[str] = []
    for block in _blocks(measured):
        own = {number.row: number.seeds for number in measured if number.block == block}
        usual = common_seeds(own.values())
        if usual != common:
            told.append(_with_seeds("", block, usual))
        rows = {row: seeds for row, seeds in own.items() if seeds != usual}
        told += [_with_seeds(_row_name(row), block, seeds) for row, seeds in rows.items()]
    return told


def _with_seeds(row: str, block: Block, seeds: str) -> str:
    return " ".join(filter(None, [row, *block.headings, f"({count_text(seeds)})"]))


def _row_name(row: Row) -> str:
    return row.names[0] if len(row.names) == 1 else f"`{row.strategy}`"
