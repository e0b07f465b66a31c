"""Mutation testing: which single changes of a module its tests would not notice (docs/testing.md).

    python tests/mutation.py strategies/losses.py strategies/mib.py --tests tests/test_losses.py tests/test_methods.py

Each mutant is tried in a fork of a process that has collected the tests: what it changes is put into the functions
that are there, or, outside functions, into a module imported anew. Of the tests, those that reach the changed line come
first, and the first that fails ends it. Needs the extra `mutation`.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib
import importlib.abc
import importlib.util
import itertools
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider
from mutmut.mutation.mutators import mutation_operators

CONSOLE = os.fdopen(os.dup(2), "w")
LONG = 0.3
"""Tests that take longer keep their order: they may share a fixture."""
ROOT = Path(__file__).resolve().parent.parent
NOTICED, SURVIVED, OTHERWISE = 1, 0, 3
"""How a mutant's process ends; OTHERWISE: it cannot be put into the functions that are there."""

# ------------------------------------------------------------------------------------------------- the mutants


@dataclass(frozen=True)
class Mutant:
    """A changed module; `lines` are those of the changed statement, `whole` if it lies outside functions."""

    path: Path
    line: int
    change: str
    source: str
    lines: frozenset[int]
    whole: bool


def statement_removed(node: cst.SimpleStatementLine) -> Iterable[cst.CSTNode]:
    """`f(x)` becomes `pass`."""
    if m.matches(node, m.SimpleStatementLine(body=[m.Expr(value=m.Call())])):
        yield node.with_changes(body=[cst.Pass()])


def arguments_exchanged(node: cst.Call) -> Iterable[cst.CSTNode]:
    """`f(x, y)` becomes `f(y, x)`, where that can make a difference."""
    if m.matches(node.func, m.Name("min") | m.Name("max")):
        return
    for i in range(len(node.args) - 1):
        one, other = node.args[i], node.args[i + 1]
        if not (one.keyword or other.keyword or one.star or other.star):
            pair = [one.with_changes(value=other.value), other.with_changes(value=one.value)]
            yield node.with_changes(args=[*node.args[:i], *pair, *node.args[i + 2 :]])


OPERATORS: list[tuple[type, Callable[[Any], Iterable[cst.CSTNode]]]] = [
    *mutation_operators,
    (cst.SimpleStatementLine, statement_removed),
    (cst.Call, arguments_exchanged),
]
UNCOUNTED = (
    m.Annotation()  # types, and the ranges of settings
    | m.Decorator()
    | m.Import()
    | m.ImportFrom()
    | m.Raise()  # the texts of errors
    | m.Subscript(value=m.Name("Literal") | m.Name("Annotated") | m.Name("dict") | m.Name("tuple"))  # types again
    | m.Call(func=m.Attribute(value=m.Name("log") | m.Name("warnings")))
    | m.Call(func=m.Name("cast") | m.Name("TypeVar"))
    | m.Arg(keyword=m.Name("note"))
    | m.AnnAssign(target=m.Name("citation"))
    | m.Expr(value=m.SimpleString() | m.ConcatenatedString())  # docstrings
    | m.FunctionDef(name=m.Name("__repr__"))
    | m.If(test=m.Name("TYPE_CHECKING"))
)


class Changes(cst.CSTVisitor):
    """Collects (node, what takes its place) wherever a change counts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[cst.CSTNode, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if m.matches(node, UNCOUNTED):
            return False
        for kind, operator in OPERATORS:
            if isinstance(node, kind):
                self.found += [(node, other) for other in operator(node)]
        return True


def mutants(path: Path) -> list[Mutant]:
    """Return all mutants of a module, in the order of its lines."""
    wrapper = MetadataWrapper(cst.parse_module(path.read_text()))
    places, parents = wrapper.resolve(PositionProvider), wrapper.resolve(ParentNodeProvider)
    changes = Changes()
    wrapper.module.visit(changes)
    code = wrapper.module.code
    found = {}
    for node, other in changes.found:
        line = places[node].start.line
        changed_module = wrapper.module.deep_replace(node, other)
        assert isinstance(changed_module, cst.Module)
        source = changed_module.code
        around = list(_ancestors(node, parents))
        statement = next(n for n in around if isinstance(n, cst.BaseStatement | cst.BaseSmallStatement))
        changed = statement if isinstance(statement, cst.FunctionDef) else node  # a default shows in the whole body
        lines = frozenset([places[statement].start.line, *range(line, places[changed].end.line + 1)])
        if source != code and _compiles(source):
            whole = not any(isinstance(n, cst.FunctionDef) for n in around)
            found.setdefault(source, Mutant(path, line, _difference(code, source), source, lines, whole))
    return sorted(found.values(), key=lambda mutant: mutant.line)


def _ancestors(node: cst.CSTNode, parents: Any) -> Iterator[cst.CSTNode]:
    yield node
    while node in parents:
        node = parents[node]
        yield node


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _difference(code: str, source: str) -> str:
    old, new = code.splitlines(), source.splitlines()
    first = next(i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    last = next(i for i, (a, b) in enumerate(zip(reversed(old), reversed(new), strict=False)) if a != b)
    parts = (" ".join(line.strip() for line in lines[first : len(lines) - last]) for lines in (old, new))
    return " -> ".join(parts)


# ---------------------------------------------------------------------------------------- a module with a change


def put_into(module: types.ModuleType, source: str) -> None:
    """Give the functions and methods of a module the code of a changed source."""
    changed = types.ModuleType(module.__name__)
    changed.__file__ = module.__file__
    exec(compile(source, str(module.__file__), "exec"), vars(changed))
    _exchange(vars(module), vars(changed), module.__name__)


def _exchange(old: Any, new: Any, module: str) -> None:
    for name, one in new.items():
        if name not in old:
            continue
        if isinstance(one, type) and one.__module__ == module:
            _exchange(vars(old[name]), vars(one), module)
            continue
        mine, its = _function(old[name]), _function(one)
        if mine and its and its.__module__ == module and mine is not its:
            mine.__code__, mine.__defaults__, mine.__kwdefaults__ = its.__code__, its.__defaults__, its.__kwdefaults__


def _function(value: Any) -> types.FunctionType | None:
    for name in ("__func__", "fget", "func", "__wrapped__"):
        value = getattr(value, name, None) or value
    return value if isinstance(value, types.FunctionType) else None


class Importer(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a changed source in the place of a module's own."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, name: str, *args: Any) -> Any:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def exec_module(self, module: types.ModuleType) -> None:
        exec(compile(self.source, str(self.path), "exec"), vars(module))


# ------------------------------------------------------------------------------------------------ trying mutants


def forked(work: Callable[[], int], seconds: float = 1e6) -> int:
    """Do the work in a process of its own; return its end, NOTICED where it crashes or takes more of the CPU."""
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds + time.process_time()), -1))
        end = NOTICED
        try:
            end = work()
        finally:
            os._exit(end)
    until = time.monotonic() + 60 + 20 * seconds  # it may wait for ever, too
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else NOTICED
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return NOTICED


class Reached(NamedTuple):
    """The lines that a test reaches, by module, and the seconds of the CPU that it takes."""

    lines: dict[str, list[int]]
    seconds: float

    def lines_of(self, path: Path) -> set[int]:
        return set(self.lines.get(str(path), []))


def _is_of_the_tests(one: Any) -> bool:
    return "tests" in Path(getattr(sys.modules.get(one.__module__), "__file__", None) or "").parts


class Trials:
    """A pytest plugin that tries mutants instead of running the tests once."""

    def __init__(self, tried: Sequence[Mutant], results: Path, patience: float) -> None:
        self.tried, self.results, self.patience = tried, results, patience
        self.paths = sorted({str(mutant.path) for mutant in tried})
        self.otherwise: list[Mutant] = []
        self.failed = False

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.failed |= report.failed

    def pytest_runtestloop(self, session: Any) -> bool:
        base = session.config._tmp_path_factory.getbasetemp()
        reached = self._reached(session.items, base)
        for mutant in self.tried:
            near = self._chosen(session.items, mutant, reached)
            started = time.monotonic()
            limit = 3 + 2 * sum(reached[item.nodeid].seconds for item in near)
            end = forked(functools.partial(self._try, mutant, near), limit)
            shutil.rmtree(base, ignore_errors=True)
            base.mkdir()
            if end == OTHERWISE:
                self.otherwise.append(mutant)
            else:
                note(self.results, mutant, end, time.monotonic() - started)
        return True

    def _chosen(self, items: list[Any], mutant: Mutant, reached: dict[str, Reached]) -> list[Any]:
        """Return the tests that reach the mutant, the short ones first, as many as the patience allows."""
        near = [item for item in items if mutant.lines & reached[item.nodeid].lines_of(mutant.path)]
        near.sort(key=lambda item: min(LONG, reached[item.nodeid].seconds))
        until = list(itertools.accumulate(reached[item.nodeid].seconds for item in near))
        return [item for i, item in enumerate(near) if not i or until[i] <= self.patience]

    def _reached(self, items: list[Any], base: Path) -> dict[str, Reached]:
        """Return what each test reaches by itself: no fixture and no cache is left to it by another."""
        told = base.parent / f"{base.name}-reached.json"

        def measure() -> int:
            caches = [one for one in gc.get_objects() if isinstance(one, functools._lru_cache_wrapper)]
            caches = [one for one in caches if _is_of_the_tests(one)]
            told.write_text(json.dumps({item.nodeid: self._measured(item, caches) for item in items}))
            return 0

        forked(measure)
        found: dict[str, Any] = json.loads(told.read_text())
        told.unlink()
        return {name: Reached(*one) for name, one in found.items()}

    def _measured(self, item: Any, caches: Sequence[Any]) -> Reached:
        import coverage

        for one in caches:
            one.cache_clear()
        cover = coverage.Coverage(data_file=None, include=self.paths, config_file=False)
        started = time.process_time()
        cover.start()
        self._run(item, None)
        cover.stop()
        lines = {path: cover.get_data().lines(path) or [] for path in self.paths}
        if self.failed:
            print(f"left out, it fails without a change: {item.nodeid}", file=CONSOLE, flush=True)
            lines = {}
        self.failed = False
        return Reached(lines, time.process_time() - started)

    def _try(self, mutant: Mutant, items: list[Any]) -> int:
        try:
            put_into(importlib.import_module(module_name(mutant.path)), mutant.source)
        except ValueError:
            return OTHERWISE
        for item, following in zip(items, [*items[1:], None], strict=False):
            self._run(item, following)
            if self.failed:
                return NOTICED
        return SURVIVED

    def _run(self, item: Any, following: Any) -> None:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


def note(results: Path, mutant: Mutant, end: int, seconds: float) -> None:
    """Append what became of a mutant."""
    found = {
        "module": str(mutant.path.relative_to(ROOT)),
        "line": mutant.line,
        "change": mutant.change,
        "noticed": end != SURVIVED,
        "seconds": round(seconds, 2),
    }
    with results.open("a") as file:
        file.write(json.dumps(found) + "\n")


def module_name(path: Path) -> str:
    """Return the name by which a module of the repository is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def tested(tests: Sequence[str], base: str, *plugins: Any) -> int:
    """Run pytest on files; return its end."""
    import pytest

    return int(pytest.main(["-x", "-n0", "-p", "no:cacheprovider", f"--basetemp={base}", *tests], list(plugins)))


def _hush() -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)


def try_all(tried: Sequence[Mutant], tests: Sequence[str], results: Path, patience: float) -> None:
    """Try mutants and write a line on each into `results`."""
    import torch

    importlib.import_module("avalanche.training")  # what is imported here is imported once for all

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        left = Path(folder) / "left.json"

        def in_functions() -> int:
            _hush()
            trials = Trials([mutant for mutant in tried if not mutant.whole], results, patience)
            tested(tests, f"{folder}/tmp", trials)
            left.write_text(json.dumps([tried.index(mutant) for mutant in trials.otherwise]))
            return 0

        def as_a_whole() -> int:
            sys.meta_path.insert(0, Importer(module_name(mutant.path), mutant.path, mutant.source))
            _hush()
            return NOTICED if tested(tests, f"{folder}/tmp") else SURVIVED

        forked(in_functions)
        others = set(json.loads(left.read_text()))
        for i, mutant in enumerate(tried):
            if mutant.whole or i in others:
                started = time.monotonic()
                note(results, mutant, forked(as_a_whole, 120), time.monotonic() - started)


def main() -> None:
    """Try the modules' mutants and print those that survive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", type=Path, nargs="+", help="the modules that are changed")
    parser.add_argument("--tests", nargs="+", required=True, help="the files of their tests")
    parser.add_argument("--sample", type=int, help="of each module try so many, drawn by the seed 0, instead of all")
    parser.add_argument("--again", type=Path, help="try those alone that survived by this file of results")
    parser.add_argument("--patience", type=float, default=math.inf, help="seconds of tests for one mutant")
    parser.add_argument("--results", type=Path, default=Path("mutants.jsonl"), help="a line of JSON on each")
    options = parser.parse_args()
    tried = []
    for module in options.modules:
        found = mutants(module.resolve())
        print(f"{module}: {len(found)} mutants")
        if options.again:
            survived = {told["change"] for told in map(json.loads, options.again.open()) if not told["noticed"]}
            found = [mutant for mutant in found if mutant.change in survived]
        if options.sample is not None and options.sample < len(found):
            found = random.Random(0).sample(found, options.sample)
        tried += found
    options.results.write_text("")
    try_all(tried, options.tests, options.results, options.patience)
    results = [json.loads(line) for line in options.results.open()]
    for module in options.modules:
        of_it = [told for told in results if told["module"] == str(module)]
        for told in sorted(of_it, key=lambda told: told["line"]):
            if not told["noticed"]:
                print(f"{module}:{told['line']}: {told['change']}")
        ends = Counter(told["noticed"] for told in of_it)
        print(f"{module}: {len(of_it)} tried, {ends[True]} noticed, {ends[False]} survived")


if __name__ == "__main__":
    main()
