"""Where people run it: containers, clusters, other people's caches, odd terminals, folders with namesakes."""

from __future__ import annotations

import argparse
import ast
import errno
import importlib.util
import os
import resource
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from little_set import LittleSet
from PIL import Image
from surroundings import in_surroundings
from test_resume import SCENARIO, command_line

import bench
from bench.cli.arguments import a_path
from bench.cli.entry import _parser, main
from bench.homes import give_homes
from bench.imports import importing_what_is_installed
from bench.plan.code import PACKAGES
from bench.plan.folders import data_root_of
from bench.screen.faults import explained
from bench.settings.errors import RequestError
from bench.start import forget_working_directory
from bench.train import forkserver
from benchmarks import avalanche_home
from benchmarks.cache import cache_folder, keep, kept_text
from benchmarks.errors import DataError
from benchmarks.names import ScenarioName
from benchmarks.paths import can_write, user_path
from benchmarks.scenarios import compute_scenario, load_scenario
from reports.atomic import write_atomic

TOP = Path(bench.__file__).parents[1]
NAMESAKES = ("random", "queue", "inspect", "bench", "strategies", "reports", "signal", "socket")
"""Of modules of Python's and ours, some of which a process has from its start."""


@pytest.fixture
def namesakes(tmp_path: Path) -> Path:
    """A folder of modules with names of others: each that is executed leaves a file in `executed`."""
    folder, executed = tmp_path / "work", tmp_path / "executed"
    for made in (folder, executed):
        made.mkdir()
    executed.chmod(0o777)
    for name in NAMESAKES:
        (folder / f"{name}.py").write_text(f"open({str(executed / name)!r}, 'w').close()\n")
    return folder


def executed(namesakes: Path) -> list[str]:
    return [path.name for path in (namesakes.parent / "executed").iterdir()]


# ---------------------------------------------------------------------------------------------------- containers


@pytest.fixture
def for_all() -> Iterator[Path]:
    """A folder that every user can reach: that of pytest is for one."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.long
def test_a_run_in_a_container_as_nobody_in_particular_in_a_folder_of_namesakes(
    data_root: Path, namesakes: Path, for_all: Path
) -> None:
    """With workers and decoding processes; the home is not to be written to, nor anything but three folders."""
    folders = cache, out, long = [for_all / name for name in ("cache", "out", "x" * 90)]
    for folder in folders:
        folder.mkdir()
        folder.chmod(0o777)
    settings = ["base.epochs=1", "data.size=16", "data.workers=2", "data.ram_gb=0", "memory.size=8"]
    script = for_all / "bench-script"
    script.write_text("from bench.cli.entry import main\nif __name__ == '__main__':\n    main()\n")
    done = in_surroundings(
        [sys.executable, script, *command_line(data_root, out, "er", settings), "--jobs", "2"],
        shm="64k",
        read_only=True,
        writable=[*folders, namesakes.parent / "executed"],
        user=12345,
        environment={"PYTHONPATH": str(TOP), "HOME": "/", "BENCH_CACHE": str(cache), "TMPDIR": str(long)},
        cwd=namesakes,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(out.rglob("done"))) == 1
    assert executed(namesakes) == []


def test_what_is_started_imports_nothing_of_the_working_directory(
    namesakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another copy of this code there changes nothing either, whatever entries PYTHONPATH has that are empty."""
    (namesakes / "bench.py").unlink()
    (namesakes / "bench").mkdir()
    (namesakes / "bench" / "__init__.py").write_text((namesakes / "random.py").read_text())
    monkeypatch.setenv("PYTHONPATH", f":{TOP}:")
    monkeypatch.chdir(namesakes)
    before = dict(os.environ)
    code = "import random, queue, bench; print(bench.__file__)"
    with importing_what_is_installed():
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == f"{bench.__file__}\n"
    assert executed(namesakes) == []
    assert (dict(os.environ), Path.cwd()) == (before, namesakes)


def test_the_command_itself_forgets_the_working_directory(namesakes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(namesakes)
    monkeypatch.setattr(sys, "path", ["", str(namesakes), "/elsewhere", str(TOP)])
    forget_working_directory()
    assert sys.path == ["/elsewhere", str(TOP)]
    monkeypatch.chdir(TOP)
    forget_working_directory()
    assert str(TOP) in sys.path


def test_sockets_lie_where_their_paths_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr("multiprocessing.util.get_temp_dir", lambda: made.append(tempfile.gettempdir()))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 90)))
    Path(tempfile.gettempdir()).mkdir()
    forkserver._place_sockets()
    assert made == ["/tmp"]
    assert tempfile.gettempdir() == str(tmp_path / ("x" * 90))
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(RequestError, match=f"^TMPDIR={tmp_path}/x+: too long a path for a socket, and /tmp cannot"):
        forkserver._place_sockets()


# --------------------------------------------------------------------------------------------------------- homes


@contextmanager
def no_home() -> Iterator[pytest.MonkeyPatch]:
    """HOME is not set, and the user id has no name."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "BENCH_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "TORCH_HOME"):
            patch.delenv(name, raising=False)
        patch.setattr("pwd.getpwuid", unknown)
        yield patch


def test_without_a_home_one_line_says_what_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    with no_home(), pytest.raises(SystemExit, match="2"):
        main(["scenario", "shapes-15-1-disjoint"])
    assert capsys.readouterr().err == (
        "bench: there is no place for the cache, as HOME is not set and the user has no home; set BENCH_CACHE\n"
    )


def test_without_a_home_libraries_find_theirs_in_our_cache(tmp_path: Path) -> None:
    with no_home() as patch:
        patch.setenv("BENCH_CACHE", str(tmp_path))
        give_homes()
        places = {name: os.environ.pop(name) for name in ("MPLCONFIGDIR", "TORCH_HOME", "WANDB_CACHE_DIR")}
        del os.environ["WANDB_CONFIG_DIR"], os.environ["WANDB_DATA_DIR"]
    assert places["MPLCONFIGDIR"] == str(tmp_path / "libraries" / "matplotlib")
    assert all(can_write(Path(place)) for place in places.values())


def test_a_home_that_can_be_written_to_is_left_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    before = dict(os.environ)
    give_homes()
    assert dict(os.environ) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", ["none", "file", "cut off"])
def test_avalanche_is_imported_without_a_home(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with no_home() as patch:
        if fault == "file":
            patch.setenv("HOME", "/dev/null")
        if fault == "cut off":
            (tmp_path / ".avalanche").mkdir()
            (tmp_path / ".avalanche" / "config.json").touch()
            patch.setenv("HOME", str(tmp_path))
        home_before = os.environ.get("HOME")
        import avalanche.benchmarks.datasets

        name = "avalanche.benchmarks.datasets.dataset_utils"
        spec = avalanche_home._Finder().find_spec(name, avalanche.benchmarks.datasets.__path__)
        assert spec and spec.loader
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert os.environ.get("HOME") == home_before
    assert module.AVALANCHE_CONFIG["dataset_location"].endswith(".avalanche/data")
    assert not (tmp_path / "~").exists()


# --------------------------------------------------------------------------------------------------------- paths


def test_a_tilde_is_expanded_as_in_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/runs") == tmp_path / "runs"
    assert user_path("~nobody-has-this-name/a") == Path("~nobody-has-this-name/a")
    assert user_path("a/~/$HOME") == Path("a/~/$HOME")
    with no_home(), pytest.raises(DataError, match=r"^~/runs: HOME is not set and the user has no home"):
        user_path("~/runs")


def test_every_path_on_a_command_line_has_its_tilde_expanded() -> None:
    def options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for below in action.choices.values():
                    yield from options(below)
            yield action

    kinds = {action.dest: action.type for action in options(_parser()) if isinstance(action.default, Path)}
    paths = {"data_root", "class_list", "runs", "out", "config", "tables", "folder", "run", "sources", "images"}
    paths |= {"to", "file", "study", "apply"}
    given = {action.dest for action in options(_parser()) if action.type is a_path}
    assert given == paths
    assert set(kinds.values()) == {a_path}
    assert Path not in {action.type for action in options(_parser())}


@pytest.mark.parametrize(("variable", "below"), [("BENCH_CACHE", ""), ("XDG_CACHE_HOME", "continual-seg-bench")])
def test_a_tilde_in_the_environment_is_expanded(
    variable: str, below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BENCH_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(variable, "~/cache")
    assert cache_folder("packed") == tmp_path / "cache" / below / "packed"


def test_a_tilde_in_a_scenario_s_name_is_expanded(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "order.txt").write_text(" ".join(map(str, range(20, 0, -1))))
    monkeypatch.setenv("HOME", str(tmp_path))
    scenario = load_scenario(f"{SCENARIO}:order=~/order.txt", data_root)
    assert scenario.groups[0][:2] == (20, 19)


def test_a_limit_on_the_size_of_files_is_told_like_a_full_disk(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_atomic(tmp_path / "a.csv", "1" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert explained(caught.value) == (
        f"no file may be so large: {tmp_path / 'a.csv'} cannot be written; raise the limit (ulimit -f), or use "
        "another file system, then the same command goes on where it stopped"
    )
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------- the user's config.yaml


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "there is no data_root, it is the path of a folder; --data-root DIR does without"),
        ("data_root: 3", "data_root is 3, it is the path of a folder; --data-root DIR does without"),
        ("dataroot: /data", "unknown setting dataroot; known here: data_root"),
        ("data_root: [", "is not plain YAML"),
        (None, "cannot read"),
    ],
)
def test_a_user_s_file_that_is_wrong_stops_only_what_needs_it(
    content: str | None,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "continual-seg-bench" / "config.yaml"
    file.parent.mkdir()
    file.write_text(content or "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    if content is None:

        def refused(path: Path) -> bool:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(Path, "is_file", refused)
    assert data_root_of("shapes", None) is None
    assert data_root_of("voc", tmp_path) == tmp_path
    with pytest.raises(RequestError) as caught:
        data_root_of("voc", None)
    assert str(file) in str(caught.value)
    assert told in str(caught.value)
    if content is not None:
        with pytest.raises(SystemExit, match="2"):
            main(["data", "check", "voc"])
        [line] = capsys.readouterr().err.splitlines()
        assert str(file) in line


def test_the_user_s_file_names_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".config" / "continual-seg-bench" / "config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("data_root: ~/données\n", encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert data_root_of("voc", None) == tmp_path / "données"


# ------------------------------------------------------------------------------------------------------- terminals


def output(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sh", "-c", f'exec "$0" -m bench {command}', sys.executable],
        env={**os.environ, "PYTHONPATH": str(TOP), **environment},
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_a_closed_stream_takes_what_is_printed(closed: str) -> None:
    done = output(f"scenarios {closed}")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_poor_terminal_gets_replacements_and_files_are_utf_8(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    (root / "classes.txt").write_text("Straße\n道路\n", encoding="utf-8")

    for i in range(4):
        Image.new("RGB", (8, 8)).save(root / "images" / f"{i}.png")
        Image.fromarray(np.full((8, 8), 1 + i % 2, np.uint8)).save(root / "masks" / f"{i}.png")
    for split, ids in (("train", "0\n1\n"), ("val", "2\n3\n")):
        (root / f"{split}.txt").write_text(ids)
    poor = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = output(f"scenario folder-1-1-disjoint --data-root {root}", **poor)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"1 Stra?e" in done.stdout
    assert b"2 ??" in done.stdout


def test_our_files_are_read_and_written_as_utf_8() -> None:
    """Every call that reads or writes text says so: the encoding of a locale may be another."""
    unsaid = []
    for path in (path for package in PACKAGES for path in (TOP / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _is_of_text(node) and "encoding" not in {k.arg for k in node.keywords}:
                unsaid.append(f"{path.relative_to(TOP)}:{node.lineno}")
    assert unsaid == []


def _is_of_text(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    mode = next((a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)), None)
    if name == "fdopen":
        return True
    if name == "open" and isinstance(mode, str):
        return "b" not in mode and set(mode) <= set("rwax+t")
    return name == "write_text" or (name == "read_text" and not call.args)  # a distribution's is given a name


# ------------------------------------------------------------------------------------------------ two users, one cache


def as_user(uid: int, action: Callable[[], str]) -> str:
    """Return what an action returns, or its error in words, done by another user in a forked process."""
    if os.getuid():
        pytest.skip("nobody but root can be another user")
    there, here = os.pipe()
    if not (child := os.fork()):
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            said = action()
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        os.write(here, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(here)
    with os.fdopen(there, encoding="utf-8") as answer:
        return answer.read()


@pytest.fixture
def first_user_s_cache(for_all: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(for_all))
    return for_all


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_two_users_share_a_cache_as_far_as_the_first_one_s_umask_allows(umask: int, first_user_s_cache: Path) -> None:
    before = os.umask(umask)
    try:
        kept_text("images", "a", lambda: "of the first")
    finally:
        os.umask(before)
    kept = as_user(12345, lambda: kept_text("images", "a", lambda: "of the second"))
    other = as_user(12345, lambda: kept_text("images", "b", lambda: "of the second"))
    folder = first_user_s_cache / "images"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~umask
    refused = f"DataError: cannot use the cache folder {folder} (Permission denied); BENCH_CACHE names another"
    assert (kept, other) == ("of the first" if umask == 0o022 else refused, refused)


def test_a_file_that_cannot_be_kept_is_named_and_not_its_scrap(first_user_s_cache: Path) -> None:
    path = first_user_s_cache / "a.npz"
    told = as_user(12345, lambda: str(keep(path, b"content")))
    assert told == f"PermissionError: [Errno 13] Permission denied: '{path}'"


# -------------------------------------------------------------------------------------------------------- thin steps


def dense(images: int, without_last: int) -> LittleSet:
    """Images that all show class 1, and but for a few class 2."""
    shown = np.zeros((images, 3), dtype=bool)
    shown[:, 1] = True
    shown[without_last:, 2] = True
    return LittleSet(shown, shown)


def test_steps_that_are_left_hardly_an_image_are_told_with_the_ways_out() -> None:
    def told(setup: str, rule: str | None, without_last: int) -> str | None:
        name = ScenarioName("little", "", setup, rule=rule)
        return compute_scenario(name, dense(367, without_last), ((1,), (2,))).thin_steps

    assert told("disjoint", None, 3) == (
        "step 0 has 3 of 367 training images, as most show a later class too: rule=ade shares the images out, "
        "overlapped gives each step all images of its classes"
    )
    assert told("disjoint", None, 4) is None  # 1.09 %
    assert told("overlapped", None, 3) is None
    assert told("disjoint", "ade", 3) is None
