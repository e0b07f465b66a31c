"""What the paper's numbered tables are made of: their rows, their columns, and the runs that fill them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports.records import Run, Unfinished
from reports.rows import EMBEDDED

REAL = ("voc", "ade")
ON = (*REAL, *EMBEDDED)

MEMORY = 100
"""BM of Tables 1, 3 and 4, in images."""


@dataclass(frozen=True, order=True)
class NeededRun:
    """What one of a table's rows needs for a block of columns: any seeds of it will do."""

    scenario: str
    strategy: str
    """The strategy's label, as in `spec.yaml`."""
    memory: int
    """In images."""


@dataclass(frozen=True)
class Row:
    """A row: the strategy's label and what stands at its left."""

    strategy: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """Neighbouring columns that one run fills: headings above them, and (column of steps.csv, header) for each."""

    headings: tuple[str, ...]
    split: str
    memory: int
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Layout:
    """A table of the paper before its data set is chosen; `stub` are the headers of the rows' names."""

    real: str
    embedded: str
    """The data set of as many classes that stands in for the real one."""
    title: str
    stub: tuple[str, ...]
    stub_heading: str
    rows: tuple[Row, ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Grid:
    """A table of the paper on one data set."""

    table: int
    dataset: str
    layout: Layout

    @property
    def embedded(self) -> bool:
        """Whether the data set is an embedded one, whose numbers compare with nothing published."""
        return self.dataset in EMBEDDED

    def cell(self, row: Row, block: Block) -> NeededRun:
        """Return the run that a row needs for a block of columns."""
        return NeededRun(f"{self.dataset}-{block.split}", row.strategy, block.memory)


_METHODS = (
    Row("er", ("ER",)),
    Row("lwf-mc", ("LwF.MC*",)),
    Row("icarl", ("iCaRL",)),
    Row("agem", ("AGEM",)),
    Row("mir", ("MIR",)),
    Row("mib", ("MiB*",)),
    Row("coriseg", ("CoRiSeg",)),
    Row("ours", ("Ours",)),
)
_ABLATION = (
    Row("ours(head=linear,loss=cross-entropy,memory=reservoir,sampling=uniform)", ("✗", "✗", "✗", "✗")),
    Row("ours(head=linear,loss=cross-entropy,sampling=uniform)", ("✓", "✗", "✗", "✗")),
    Row("ours(head=linear,sampling=uniform)", ("✓", "✓", "✗", "✗")),
    Row("ours(sampling=uniform)", ("✓", "✓", "✓", "✗")),
    Row("ours", ("✓", "✓", "✓", "✓")),
)
_19_1 = (("old", "0-19"), ("new", "20"), ("miou", "all"))
_15 = (("old", "0-15"), ("new", "16-20"), ("miou", "all"))
_OVER_TIME = (("imiou", "imIoU"), ("miou", "Final mIoU"))
_100_10 = (
    ("old", "0-100"),
    ("step_1", "101-110"),
    ("step_2", "111-120"),
    ("step_3", "121-130"),
    ("step_4", "131-140"),
    ("step_5", "141-150"),
    ("miou", "all"),
)

LAYOUTS: dict[int, Layout] = {
    1: Layout(
        real="voc",
        embedded="shapes",
        title="mean IoU (%) after the last step of different splits",
        stub=("Methods",),
        stub_heading="",
        rows=_METHODS,
        blocks=(
            Block(("19-1", "Disjoint"), "19-1-disjoint", MEMORY, _19_1),
            Block(("19-1", "Overlapped"), "19-1-overlapped", MEMORY, _19_1),
            Block(("15-5", "Disjoint"), "15-5-disjoint", MEMORY, _15),
            Block(("15-5", "Overlapped"), "15-5-overlapped", MEMORY, _15),
            Block(("15-1", "Disjoint"), "15-1-disjoint", MEMORY, _15),
            Block(("15-1", "Overlapped"), "15-1-overlapped", MEMORY, _15),
        ),
    ),
    2: Layout(
        real="voc",
        embedded="shapes",
        title="mean IoU (%) on 15-1 disjoint by the size BM of the memory in images",
        stub=("Methods",),
        stub_heading="",
        rows=_METHODS,
        blocks=tuple(Block((f"BM = {size}",), "15-1-disjoint", size, _OVER_TIME) for size in (20, 50, 100)),
    ),
    3: Layout(
        real="ade",
        embedded="scenes",
        title="mean IoU (%) after the last step of different splits",
        stub=("Methods",),
        stub_heading="",
        rows=_METHODS,
        blocks=(
            Block(("100-50",), "100-50-disjoint", MEMORY, (("old", "0-100"), ("new", "101-150"), ("miou", "all"))),
            Block(("100-10",), "100-10-disjoint", MEMORY, _100_10),
            Block(
                ("50-50",),
                "50-50-disjoint",
                MEMORY,
                (("old", "0-50"), ("step_1", "51-100"), ("step_2", "101-150"), ("miou", "all")),
            ),
        ),
    ),
    4: Layout(
        real="ade",
        embedded="scenes",
        title=(
            "ablation on 50-50 disjoint (CBES: class-balanced exemplar selection, C.R.: composite loss with "
            "relabelling, C.N.: cosine normalisation, D.S.: dynamic sampling)"
        ),
        stub=("CBES", "C.R.", "C.N.", "D.S."),
        stub_heading="Components",
        rows=_ABLATION,
        blocks=(Block(("",), "50-50-disjoint", MEMORY, (("imiou", "imIoU (%)"),)),),
    ),
}
"""The paper's Tables 1-4, rows and columns in its order (Tables 1 and 3: after the last step)."""


def grid(table: int, on: str) -> Grid:
    """Return a table's grid on the real sets (`voc` or `ade`) or on the embedded ones (`shapes` or `scenes`).

    Tables 1 and 2 are on the 20-class set of the two, Tables 3 and 4 on the 150-class set, whichever of the two is
    named. ValueError for a table or a data set that there is not.
    """
    if table not in LAYOUTS:
        raise ValueError(f"table {table!r}: allowed are {', '.join(map(str, LAYOUTS))}")
    if on not in ON:
        raise ValueError(f"data set {on!r}: allowed are {', '.join(ON)}")
    layout = LAYOUTS[table]
    return Grid(table, layout.real if on in REAL else layout.embedded, layout)


def needed(table: int, on: str) -> list[NeededRun]:
    """Return the runs that a table needs, block after block, each once; `table` and `on` as for `grid`."""
    chosen = grid(table, on)
    return [chosen.cell(row, block) for block in chosen.layout.blocks for row in chosen.layout.rows]


MEMORY_SETTING = "memory.size"


def runs_by_memory(runs: Sequence[Run]) -> dict[Any, list[Run]]:
    """Return the runs by their memory's size in images, smallest first, None (not recorded) last."""
    sizes = sorted({memory_of(run) for run in runs}, key=lambda size: (size is None, size))
    return {size: [run for run in runs if memory_of(run) == size] for size in sizes}


def need_of(run: Run | Unfinished) -> NeededRun:
    """Return which of a table's cells a run would be for."""
    return NeededRun(run.spec["scenario"], run.spec["strategy"], memory_of(run))


def memory_of(run: Run | Unfinished) -> Any:
    """Return the size of a run's memory in images; None where its spec does not tell."""
    return run.spec["config"].get("memory", {}).get("size")
