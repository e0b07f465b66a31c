"""The code that decides numbers: what base trainings and runs import, less what only tells of them.

An edit of it makes base models anew and leaves runs stale; an edit of a report or of the command line does neither.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from bench.imports import TOP

PACKAGES = ("bench", "benchmarks", "strategies")
"""Not `reports`: the counts of pixels are what a run finds out, every mean is made of them anew."""
TELLING = frozenset(
    {
        "bench",
        "bench.plan.code",
        "bench.settings.errors",
        "bench.settings.schema",  # the settings themselves stand in every key
        "bench.screen.events",
        "bench.screen.faults",
        "bench.train.forkserver",  # what a process may import, and where its socket lies
        "bench.train.heap",  # where tensors lie
        "bench.screen.log",
        "bench.train.keeping",
        "bench.train.loggers",
        "bench.screen.stopping",
        "strategies.learning.registry",
        "strategies.learning.search",  # where values are looked for, not what they are
        "strategies.networks.registry",
    }
)
"""Modules that change no number; every other one that is imported decides."""
BASE_TRAINING = ("bench.train.base", "bench.train.benchmark")
"""What trains a base model begins here."""
RUN = (*BASE_TRAINING, "bench.train.run")
"""What makes a run begins here, but for what is its method's alone."""
Files = Iterable[tuple[str, Path]]
"""By names that are the same on every machine."""


@cache
def deciding_digest(roots: tuple[str, ...]) -> str:
    """Return the digest of the files of the modules that decide, found from `roots`."""
    return digest_of(module_files(deciding_modules(roots)))


def digest_of(files: Files) -> str:
    """Return the SHA-256 of files, their names included."""
    digest = hashlib.sha256()
    for name, file in files:
        content = file.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def module_files(names: Iterable[str]) -> Files:
    """Return the files of modules of ours."""
    return [(name, file) for name in names if (file := _file(name))]


def deciding_modules(roots: Iterable[str]) -> list[str]:
    """Return the sorted names of our modules that `roots` import, directly or not, and of `roots`, less `TELLING`."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in found and name not in TELLING:
            found.add(name)
            waiting += _imports_of(name)
    return sorted(found)


def imported_modules(source: bytes) -> Iterator[str]:
    """Yield the modules that a Python source imports, wherever in it; a name of a package may be a module too.

    What is imported for type checkers alone is left out. Raises SyntaxError.
    """
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        else:  # an expression holds no import, and most nodes are expressions
            waiting += (part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.expr))


def own_modules(names: Iterable[str]) -> list[str]:
    """Return those of the names that are modules of the harness, and the packages that they are in."""
    own = {name for name in names if name.partition(".")[0] in PACKAGES and _file(name)}
    return sorted(own | {name.partition(".")[0] for name in own})


@cache
def _imports_of(name: str) -> list[str]:
    file = _file(name)
    return own_modules(imported_modules(file.read_bytes())) if file else []


def _file(name: str) -> Path | None:
    """Return the file of one of our modules; None where there is none of that name."""
    place = TOP.joinpath(*name.split("."))
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)
