"""What Python may import, here and where it is started from here: never what lies in the working directory."""

from __future__ import annotations

import os
import site
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
"""The folder of the packages of which this one is part."""


def environment_of_python() -> dict[str, str]:
    """Return an environment in which Python imports this code and what is installed.

    Without it, `python -c` and `python -m` look for modules in the working directory first: a user's `random.py` or
    another checkout of this code. Python 3.10 does so all the same: start it in another folder.
    """
    given = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    installed = [*site.getsitepackages(), site.getusersitepackages()]
    top = [] if str(TOP) in map(os.path.realpath, installed) else [str(TOP)]
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(dict.fromkeys([*top, *given]))}


@contextmanager
def importing_what_is_installed(told: Mapping[str, str] | None = None) -> Iterator[None]:
    """Start Python in this block such that it imports nothing of the working directory; see `environment_of_python`.

    `told` are variables more of its environment.
    """
    before = dict(os.environ)
    set_here = {"PYTHONSAFEPATH", "PYTHONPATH", *(told or ())}
    os.environ.update({**environment_of_python(), **(told or {})})
    here = None
    if sys.version_info < (3, 11):  # no PYTHONSAFEPATH
        here = os.open(".", os.O_PATH)
        os.chdir(TOP / "bench" / "settings" / "presets")
    try:
        yield
    finally:
        if here is not None:
            os.fchdir(here)
            os.close(here)
        for name in set_here:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def output_of_bench(arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run this `bench` in a process of its own, in a folder without modules, and return what it prints."""
    command = [sys.executable, "-m", "bench", *arguments]
    of_all = {**environment_of_python(), **(environment or {})}
    return subprocess.run(command, cwd=folder, env=of_all, stdout=subprocess.PIPE, text=True, check=True).stdout
