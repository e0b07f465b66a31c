"""Fixtures that all tests share."""

import gc
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from voc_root import make_voc_root

pytest_plugins = ["plugin_packages", "small_archives"]

IN_MEMORY = "/dev/shm"
ROOM = 2 * 2**30
"""Bytes that are to be free there; the files of a whole suite take a tenth of that at most."""
VOC_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def bench_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of this test process; the user's own is neither read nor written.

    What is known of images is shared with the other test processes, as with those of another command.
    """
    folder = tmp_path_factory.mktemp("cache")
    if "PYTEST_XDIST_WORKER" in os.environ:
        for name in ("packed", "presence"):
            shared = tmp_path_factory.getbasetemp().parent / name
            shared.mkdir(exist_ok=True)
            (folder / name).symlink_to(shared)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(folder))
        patch.delenv("BENCH_DATA_ROOT", raising=False)
        yield folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own: free to be damaged."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "own-cache"))
    return tmp_path / "own-cache"


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_a_terminal() -> None:
    """Ctrl-C and a closed terminal end what the tests start, also below `nohup` and `&`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """One torch thread, where a test module has imported torch: sums do not depend on the machine."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def voc_data() -> Path:
    """The data root with VOC's real label maps, which are no part of the repository."""
    if not (VOC_DATA / "VOCdevkit" / "VOC2012" / "SegmentationClassAug").is_dir():
        pytest.skip(f"VOC's label maps are not at {os.path.normpath(VOC_DATA)}")
    return VOC_DATA


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 120 + 40 tiny images, for tests that only read it."""
    return make_voc_root(tmp_path_factory.mktemp("root"), size=(24, 20))


@pytest.fixture(scope="session")
def voc_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 120 + 40 small images, to be copied."""
    return make_voc_root(tmp_path_factory.mktemp("template") / "voc")


@pytest.fixture
def tiny_voc(tmp_path: Path, voc_template: Path) -> Path:
    """A data root of the test's own with 120 + 40 small images: free to be damaged."""
    return Path(shutil.copytree(voc_template, tmp_path / "voc"))


def pytest_configure() -> None:
    """Keep the tests' files in memory, if it has room: a disk takes a fifth of their time to make and remove them.

    Garbage is collected more seldom than Python does by itself, which took a twentieth of it.
    """
    gc.set_threshold(20_000, 20, 20)
    try:
        memory = os.statvfs(IN_MEMORY)
    except OSError:
        return
    if memory.f_bavail * memory.f_frsize >= ROOM and not memory.f_flag & os.ST_NOEXEC:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", IN_MEMORY)


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of what is looked through for garbage."""
    gc.freeze()


def pytest_unconfigure() -> None:
    """Leave nothing out when Python ends: jax would call it leaked."""
    gc.unfreeze()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are cores: many tests wait for processes that they start."""
    return (os.cpu_count() or 1) + 1


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests have to say: their property `says`."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "says" and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid.partition('::')[2]}: {value}")
