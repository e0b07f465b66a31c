"""The literature's published numbers, row by row: `literature/*.yaml`, and the EM paper's of `paper.yaml`."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import yaml

from reports.files import RecordError, one_line
from reports.grids import LAYOUTS, MEMORY
from reports.paper import disagreements, published

PROTOCOLS = ("offline", "online", "joint")
"""How a published number's network was trained: step after step for epochs, in one pass, or all classes at once."""
WITH, WITHOUT, NOT_KNOWN = "with", "without", "unknown"
BACKGROUNDS = (WITH, WITHOUT, f"{WITH} (by arithmetic)", f"{WITHOUT} (by arithmetic)", NOT_KNOWN)
"""Whether the background's IoU is in `old` and `all`; by arithmetic: what makes `all` of `old` and `new`."""
ANY = "any"
UNKNOWN_SETUP = "unknown"
EM_PAPER = "EM paper"

_SCENARIO = re.compile(r"(voc|ade)-([1-9]\d*)-([1-9]\d*|any)-(overlapped|disjoint|unknown)")
_COLUMN = re.compile(r"old|new|all|avg|hiou|imiou|step_[1-9]\d*")
_TEXTS = ("protocol", "backbone", "background", "variant", "doubt")
_COMMON = ("protocol", "backbone", "background", "where")


@dataclass(frozen=True)
class Published:
    """One row of published numbers, all in per cent.

    `scenario` is a name such as `voc-15-1-overlapped`; for what holds of any increments, or where the setup is not
    told, `voc-15-any-unknown`. `source` is where the row was read, `where` the repository or paper that it is in.
    `background` is one of `BACKGROUNDS`, `memory` in images (None: not recorded). `values` by column after the last
    step: `old`, `new`, `all`, `avg` (steps 0..T), `imiou` (steps 1..T), `hiou`, and `step_1` ... (the classes of that
    step); `after`: `all` after steps 0, 1, ..., with its `spread` where it is given as a range. `variant` tells rows of
    a method apart, such as a rerun; `doubt` says why a row is doubtful, '' where it is not. `deviations` of `values`
    over seeds, of runs that stand beside the literature.
    """

    scenario: str
    method: str
    source: str
    where: str
    protocol: str
    backbone: str
    background: str
    memory: int | None = 0
    values: Mapping[str, float] = field(default_factory=dict)
    after: tuple[float, ...] = ()
    spread: float | None = None
    variant: str = ""
    doubt: str = ""
    deviations: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The method, in brackets what tells this row from its kin."""
        return f"{self.method} [{self.variant}]" if self.variant else self.method


@dataclass(frozen=True)
class Fact:
    """What a source tells of a scenario beside its numbers, such as the time it takes."""

    scenario: str
    source: str
    text: str


def published_rows(scenario: str) -> list[Published]:
    """Return what is known of a scenario: rows of its own, and those of its base step, methods together.

    RecordError, one line with the scenarios that there are, where none has its name.
    """
    require_published(scenario)
    rows = [row for row in all_rows() if _holds(row.scenario, scenario)]
    places = {method: place for place, method in reversed([*enumerate(row.method for row in rows)])}
    return sorted(rows, key=lambda row: (_of_base_step(row), places[row.method]))


def published_facts(scenario: str) -> list[Fact]:
    """Return what the sources tell of a scenario beside its numbers; RecordError as in `published_rows`."""
    require_published(scenario)
    return [fact for fact in all_facts() if _holds(fact.scenario, scenario)]


def published_scenarios() -> list[str]:
    """Return the names of the scenarios with published numbers, VOC's first, large base steps first."""
    names = {row.scenario for row in all_rows() if not _of_base_step(row)}
    return sorted(names, key=_place)


@cache
def all_rows() -> tuple[Published, ...]:
    """Return every published row, in the order of the files; RecordError, one line, where a file is malformed."""
    return (*_literature()[0], *_rows_of_em_paper())


def _of_base_step(row: Published) -> bool:
    return ANY in _parts(row.scenario)


def all_facts() -> tuple[Fact, ...]:
    """Return what the sources tell beside numbers, in the order of the files; RecordError as in `all_rows`."""
    return _literature()[1]


def require_published(scenario: str) -> None:
    """Raise RecordError, one line with the scenarios that there are, where nothing is published of one."""
    if scenario not in published_scenarios():
        raise RecordError(
            f"no published numbers of scenario '{scenario}'; there are some of {', '.join(published_scenarios())}"
        )


def _holds(told: str, scenario: str) -> bool:
    """Whether what is told of one scenario holds of another: equal, but for what is any or unknown."""
    pairs = list(zip(_parts(told), _parts(scenario), strict=True))
    return all(one in (other, ANY, UNKNOWN_SETUP) for one, other in pairs)


def _parts(scenario: str) -> tuple[str, ...]:
    match = _SCENARIO.fullmatch(scenario)
    if match is None:
        raise RecordError(f"'{scenario}' is no scenario such as voc-15-1-overlapped, voc-15-any-unknown")
    return match.groups()


def _place(scenario: str) -> tuple[bool, int, int, bool]:
    dataset, base, increment, setup = _parts(scenario)
    return dataset != "voc", -int(base), -int(increment), setup != "overlapped"


# ---------------------------------------------------------------- literature/*.yaml


@cache
def _literature() -> tuple[tuple[Published, ...], tuple[Fact, ...]]:
    rows: list[Published] = []
    facts: list[Fact] = []
    folder = importlib.resources.files("reports") / "literature"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        own_rows, own_facts = read_literature(file.read_text(encoding="utf-8"), file.name)
        rows += own_rows
        facts += own_facts
    return tuple(rows), tuple(facts)


def read_literature(text: str, name: str) -> tuple[list[Published], list[Fact]]:
    """Return the rows and facts of one file of published numbers.

    On top stand `protocol`, `backbone`, `background` and `where`, which a row may say otherwise; below `sources` each
    source's scenarios with their rows; below `facts` sentences. RecordError, one line that names the place, for a key
    that is unknown or missing, a value of another type, a number that is no percentage, and a row given twice.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecordError(f"{name}: not plain YAML ({one_line(error)})") from None
    if not isinstance(content, dict) or set(content) - {*_COMMON, "sources", "facts"}:
        raise RecordError(f"{name}: a mapping of {', '.join(_COMMON)}, sources and facts")
    common = {key: content.get(key) for key in _COMMON}
    rows = []
    for source, scenarios in _mapping(content.get("sources"), f"{name}: sources").items():
        for scenario, entries in _mapping(scenarios, f"{name}: {source}").items():
            place = f"{name}: {source}: {scenario}"
            rows += [
                _row({**common, **_mapping(entry, place), "scenario": scenario, "source": source}, place)
                for entry in _list(entries, place)
            ]
    _require_each_once(rows, name)
    facts = [_fact(entry, f"{name}: facts") for entry in _list(content.get("facts", []), f"{name}: facts")]
    return rows, facts


def _row(entry: dict[str, Any], place: str) -> Published:
    place = f"{place}: {entry.get('method')}"
    _parts(entry["scenario"])
    columns = {key: _percentage(entry.pop(key), place) for key in list(entry) if _COLUMN.fullmatch(key)}
    after = tuple(_percentage(value, place) for value in _list(entry.pop("after", []), place))
    spread = entry.pop("spread", None)
    memory = entry.pop("memory", 0)
    unknown = set(entry) - {"scenario", "source", "method", *_COMMON, *_TEXTS}
    if unknown:
        raise RecordError(f"{place}: unknown {', '.join(sorted(unknown))}")
    if type(memory) is not int or memory < 0:
        raise RecordError(f"{place}: memory is a number of images, not {memory!r}")
    if not columns and not after:
        raise RecordError(f"{place}: no number")
    texts: dict[str, Any] = {key: _text(entry.get(key), f"{place}: {key}") for key in ("method", *entry)}
    _require_one_of(texts, "protocol", PROTOCOLS, place)
    _require_one_of(texts, "background", BACKGROUNDS, place)
    return Published(
        **texts,
        memory=memory,
        values=columns,
        after=after,
        spread=None if spread is None else _percentage(spread, place),
    )


def _fact(entry: object, place: str) -> Fact:
    given = _mapping(entry, place)
    if set(given) != {"scenario", "source", "text"}:
        raise RecordError(f"{place}: scenario, source and text, not {', '.join(given)}")
    _parts(given["scenario"])
    return Fact(**{key: _text(value, place) for key, value in given.items()})


def _require_each_once(rows: list[Published], name: str) -> None:
    seen: set[tuple[str, ...]] = set()
    for row in rows:
        key = (row.scenario, row.source, row.method, row.variant)
        if key in seen:
            raise RecordError(f"{name}: {row.source}: {row.scenario}: {row.name} twice")
        seen.add(key)


def _require_one_of(texts: Mapping[str, str], key: str, allowed: tuple[str, ...], place: str) -> None:
    if texts[key] not in allowed:
        raise RecordError(f"{place}: {key} is {texts[key]!r}; allowed are {', '.join(allowed)}")


def _mapping(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise RecordError(f"{place}: a mapping with texts as keys, not {value!r:.60}")
    return value


def _list(value: object, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise RecordError(f"{place}: a list, not {value!r:.60}")
    return value


def _text(value: object, place: str) -> str:
    if not isinstance(value, str) or not value:
        raise RecordError(f"{place}: a text, not {value!r}")
    return value


def _percentage(value: object, place: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 100:
        raise RecordError(f"{place}: a percentage, not {value!r}")
    return float(value)


# ---------------------------------------------------------------- the EM paper


def _rows_of_em_paper() -> Iterator[Published]:
    """The rows of `paper.yaml`: Tables 1 and 3 with a number per group, Tables 2 and 4 by their memory and variants."""
    doubts = _doubts_of_em_paper()
    for table, layout in LAYOUTS.items():
        for block in layout.blocks:
            scenario = f"{layout.real}-{block.split}"
            rows = published(table)[block.memory if table == 2 else scenario]
            for strategy, columns in rows.items():
                yield Published(
                    scenario=scenario,
                    method=strategy,
                    source=f"{EM_PAPER}, Table {table}",
                    where="Yan et al., ACM Multimedia 2021",
                    protocol="online",
                    backbone="DeepLab-v3 ResNet-101",
                    background=WITH,
                    memory=block.memory,
                    values={"all" if name == "miou" else name: value for name, value in columns.items()},
                    doubt="; ".join(doubts.get((table, scenario, block.memory, strategy), [])),
                )


def _doubts_of_em_paper() -> dict[tuple[int, str, int, str], list[str]]:
    """What contradicts a row in the paper itself, by table, scenario, memory and strategy."""
    found: dict[tuple[int, str, int, str], list[str]] = {}
    for entry in disagreements():
        strategy, scenario = entry.cells.get("strategy"), entry.cells.get("scenario")
        if entry.only_if or strategy is None or scenario is None:
            continue
        values = ", ".join(f"{name}: {value:g}" for name, value in entry.values.items())
        for table in (int(place.removeprefix("Table ")) for place in entry.where if place.startswith("Table ")):
            found.setdefault((table, scenario, MEMORY, strategy), []).append(values)
    return found
