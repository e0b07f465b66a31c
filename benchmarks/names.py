"""Scenario names, as in `voc-15-1-disjoint`, `voc-10+6+4-overlapped` or `ade-100-10-disjoint:order=random:3`.

    DATASET-BASE-INCREMENT-SETUP   BASE classes in step 0, then INCREMENT classes a step
    DATASET-A+B+...-SETUP          A classes in step 0, then B, ...
    DATASET-SETUP:steps=FILE       the classes of each step, a line each
    ...:KEY=VALUE,KEY=VALUE        options:
        order=random:SEED          the order in which the classes are learned, or
        order=NAME                 ... a published one of the data set: mib-b of ade
        order=FILE                 ... as class ids or names (a name per line)
        split=FOLDER               each step's images, from index files (see `benchmarks.indices`)
        rule=voc|ade               how the disjoint setup divides the images (default: the data set's own)
        first=N                    the first N steps alone, with the images that they have among all

Setups: `disjoint` and `overlapped` (Cermelli et al., CVPR 2020) annotate a step's own classes; `sequential` has the
images of `disjoint` with every class seen so far annotated (Michieli and Zanuttigh, ICCVW 2019).
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from benchmarks.division import RULES
from benchmarks.errors import DataError
from benchmarks.files import read_lines
from benchmarks.imageset import ImageSet
from benchmarks.paths import user_path
from benchmarks.sets.registry import IMAGE_SETS, image_set_class

SETUPS = ("disjoint", "overlapped", "sequential")
OPTIONS = ("order", "steps", "split", "rule", "first")
_PUBLISHED_SPLITS = {20: ("19-1", "15-5", "15-1"), 150: ("100-50", "100-10", "50-50")}
STANDARD = {
    name: tuple(f"{split}-{setup}" for split in splits for setup in ("disjoint", "overlapped"))
    for name, kind in IMAGE_SETS.items()
    if (splits := _PUBLISHED_SPLITS.get(len(kind.fixed_class_names or ()) - 1))
}
"""The scenarios of the paper's tables (of ADE20K it has the disjoint ones), by data set of 20 or 150 classes."""

_NUMBER = "0|[1-9][0-9]*"
_SPLIT = rf"(?:{_NUMBER})-(?:{_NUMBER})|(?:{_NUMBER})(?:\+(?:{_NUMBER}))+"
_NAME = re.compile(rf"(?P<dataset>[a-z0-9]+)(?:-(?P<split>{_SPLIT}))?-(?P<setup>[a-z]+)(?::(?P<options>.+))?", re.ASCII)
_BETWEEN_OPTIONS = re.compile(rf",(?=(?:{'|'.join(OPTIONS)})=)")

Groups = tuple[tuple[int, ...], ...]


def scenario_names() -> list[str]:
    """Return the names of all standard scenarios."""
    return [f"{dataset}-{rest}" for dataset, names in STANDARD.items() for rest in names]


@dataclass(frozen=True)
class ScenarioName:
    """A parsed scenario name; `split` is None where `steps=FILE` gives the classes of each step."""

    dataset: str
    split: str | None
    setup: str
    order: str | None = None
    steps: str | None = None
    index_files: str | None = None
    rule: str | None = None
    first: int | None = None

    def __str__(self) -> str:
        options: dict[str, str | int | None] = {
            "order": self.order,
            "steps": self.steps,
            "split": self.index_files,
            "rule": self.rule,
            "first": self.first,
        }
        given = ",".join(f"{key}={value}" for key, value in options.items() if value is not None)
        name = "-".join(filter(None, (self.dataset, self.split, self.setup)))
        return f"{name}:{given}" if given else name


def parse_name(name: str) -> ScenarioName:
    """Parse a scenario name; raise `DataError` that names the nearest known one, or what does not come out."""
    match = _NAME.fullmatch(name)
    if match is None or match["dataset"] not in IMAGE_SETS or match["setup"] not in SETUPS:
        raise DataError(f"unknown scenario '{name}'{_hint(name)}")
    options = _options(name, match["options"] or "")
    if "rule" in options and (match["setup"] == "overlapped" or "split" in options):
        raise DataError(f"scenario '{name}': rule= divides the images of disjoint steps; here nothing is divided")
    if (match["split"] is None) != ("steps" in options):
        if match["split"] is None:
            raise DataError(f"unknown scenario '{name}'{_hint(name)}")
        raise DataError(f"scenario '{name}': a step's classes come from {match['split']} or from steps=, not both")
    parsed = ScenarioName(
        match["dataset"],
        match["split"],
        match["setup"],
        options.get("order"),
        options.get("steps"),
        options.get("split"),
        options.get("rule"),
        int(options["first"]) if "first" in options else None,
    )
    fixed = image_set_class(parsed.dataset).fixed_class_names
    if fixed and parsed.split:
        step_sizes(parsed, len(fixed) - 1)
    return parsed


def _hint(name: str) -> str:
    plain, colon, options = name.partition(":")
    if plain.startswith("folder"):
        stem, _, setup = plain.rpartition("-")
        near = difflib.get_close_matches(setup, SETUPS, n=1) if "-" in stem else []
        if near and setup not in SETUPS:
            return f"; did you mean {stem}-{near[0]}{colon}{options}?"
        return f"; it is folder-BASE-INCREMENT-SETUP, and SETUP one of {', '.join(SETUPS)}"
    near = difflib.get_close_matches(plain, scenario_names(), n=1, cutoff=0.4)
    near = [n for n in (f"{plain}-disjoint",) if n in scenario_names()] or near
    return f"; did you mean {near[0]}{colon}{options}?" if near else "; `bench scenarios` lists them"


def _options(name: str, text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in _BETWEEN_OPTIONS.split(text) if text else []:
        key, equals, value = part.partition("=")
        if key not in OPTIONS or not equals or not value or key in options:
            raise DataError(f"scenario '{name}': '{part}' is not one of the options {', '.join(OPTIONS)}, once each")
        options[key] = value
    if "steps" in options and "order" in options:
        raise DataError(f"scenario '{name}': steps= tells the order already, order= cannot be given too")
    if options.get("rule", "voc") not in RULES:
        raise DataError(f"scenario '{name}': rule={options['rule']}; allowed are {', '.join(RULES)}")
    if not re.fullmatch(r"[1-9][0-9]{0,3}", options.get("first", "2"), re.ASCII) or options.get("first") == "1":
        raise DataError(f"scenario '{name}': first={options['first']}; it is a number of steps, at least 2")
    return options


def step_sizes(name: ScenarioName, count: int) -> list[int]:
    """Return the number of classes of each step; raise `DataError` where they are not `count` in all."""
    assert name.split is not None
    if "+" in name.split:
        sizes = [int(part) for part in name.split.split("+")]
        if min(sizes) < 1 or sum(sizes) != count:
            raise DataError(f"scenario '{name}': {name.dataset} has {count} classes, {name.split} are {sum(sizes)}")
        return sizes
    base, increment = (int(part) for part in name.split.split("-"))
    if not 0 < base < count or increment < 1 or (count - base) % increment:
        raise DataError(
            f"scenario '{name}': {name.dataset} has {count} classes, so {base} base classes and {increment} "
            f"a step do not come out even"
        )
    return [base, *[increment] * ((count - base) // increment)]


def class_groups(name: ScenarioName, class_names: Sequence[str]) -> Groups:
    """Return the class ids that each step adds, in the order in which they are learned.

    `class_names` are the data set's, the background first. Raises `DataError`.
    """
    if name.steps is not None:
        return _listed_steps(name, user_path(name.steps), class_names)
    order = _class_order(name, class_names)
    ends = list(accumulate(step_sizes(name, len(order)), initial=0))
    return tuple(order[a:b] for a, b in pairwise(ends))


def canonical_name(name: ScenarioName, groups: Groups, imageset: ImageSet, index_digest: str | None) -> str:
    """Return the one name of a scenario: files appear as a digest of what they say, `index_digest` that of the split's.

    An order or a rule that is the data set's own is left out, and a number of first steps that is that of all.
    """
    sizes = [len(group) for group in groups]
    order = tuple(c for group in groups for c in group)
    by_id = tuple(range(1, imageset.class_count + 1))
    published = next((known for known, classes in imageset.class_orders.items() if classes == order), None)
    random = name.order if name.order and name.order.startswith("random:") else None
    return str(
        ScenarioName(
            name.dataset,
            f"{sizes[0]}-{sizes[1]}" if len(set(sizes[1:])) == 1 else "+".join(map(str, sizes)),
            name.setup,
            order=None if order == by_id else published or random or short_digest(order),
            index_files=index_digest,
            rule=name.rule if name.rule != imageset.disjoint_rule else None,
            first=name.first if name.first != len(groups) else None,
        )
    )


def short_digest(content: object) -> str:
    """Return eight hexadecimal digits that stand for plain data."""
    return hashlib.sha256(repr(content).encode()).hexdigest()[:8]


def _class_order(name: ScenarioName, class_names: Sequence[str]) -> tuple[int, ...]:
    count = len(class_names) - 1
    if name.order is None:
        return tuple(range(1, count + 1))
    published = image_set_class(name.dataset).class_orders
    if name.order in published:
        return published[name.order]
    if name.order.startswith("random:"):
        seed = name.order.removeprefix("random:")
        if not re.fullmatch(_NUMBER, seed, re.ASCII) or int(seed) >= 2**32:
            raise DataError(f"scenario '{name}': order={name.order}; it is order=random:SEED, a number from 0 on")
        return tuple(int(c) + 1 for c in np.random.RandomState(int(seed)).permutation(count))
    file = user_path(name.order)
    lines = _lines(name, "order", file)
    words = " ".join(lines).replace(",", " ").split()
    order = _class_ids(words if all(word.isdecimal() for word in words) else lines, class_names, file)
    if len(order) != count:
        raise DataError(f"{file} orders {len(order)} classes; {name.dataset} has {count}")
    return order


def _listed_steps(name: ScenarioName, file: Path, class_names: Sequence[str]) -> Groups:
    lines = _lines(name, "steps", file)
    words = [line.replace(",", " ").split() for line in lines]
    ids = all(word.isdecimal() for line in words for word in line)
    entries = words if ids else [[part.strip() for part in line.split(",")] for line in lines]
    order = iter(_class_ids([entry for line in entries for entry in line], class_names, file))
    groups = tuple(tuple(next(order) for _ in line) for line in entries)
    if len(groups) < 2:
        raise DataError(f"{file} has {len(groups)} step; a scenario has at least two, a line each")
    return groups


def _lines(name: ScenarioName, option: str, file: Path) -> list[str]:
    if not file.is_file():
        known = [*image_set_class(name.dataset).class_orders, "random:SEED"] if option == "order" else []
        also = "".join(f" and not {other}" for other in known)
        raise DataError(f"scenario '{name}': {option}={file} is not a file{also}")
    lines = read_lines(file)
    if not lines:
        raise DataError(f"{file} is empty; it lists classes")
    return lines


def _class_ids(entries: Sequence[str], class_names: Sequence[str], file: Path) -> tuple[int, ...]:
    """Return the ids of classes given by id or by name, all different; raise `DataError`."""
    known = {class_name: c for c, class_name in enumerate(class_names) if c}
    ids = []
    for entry in entries:
        c = int(entry) if entry.isdecimal() else known.get(entry, 0)
        if not 0 < c < len(class_names):
            near = difflib.get_close_matches(entry, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"allowed are 1..{len(class_names) - 1} or their names"
            raise DataError(f"{file}: no class '{entry}'; {hint}")
        if c in ids:
            raise DataError(f"{file}: class '{entry}' stands there more than once")
        ids.append(c)
    return tuple(ids)
