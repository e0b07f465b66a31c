"""The page on scale has what the command prints, and the command's arithmetic is that of the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bench.speed.scale
from bench.speed.index import measure, synthetic
from bench.speed.scale import Loop, hours_table, reduce_seconds, stream_table, update_seconds, updates_table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "scale.md"


def test_the_page_has_the_tables_that_the_command_prints() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for table in (updates_table(), hours_table(), stream_table()):
        first = lines.index(table[0])
        assert lines[first : first + len(table)] == table


def test_a_gpu_that_is_slower_than_all_else_sets_the_pace() -> None:
    """24 images of 3 x 0.1357 TFLOP at 20.1 TFLOPS take 0.4861 s."""
    assert update_seconds(Loop(24, False, True), 1, "fp32") == pytest.approx(0.4861, rel=0.01)


def test_a_host_that_is_slower_than_a_gpu_sets_the_pace() -> None:
    """It starts kernels for 25 ms and scales 4 images in 5.7 ms each; in bf16 8 images take 32 ms."""
    assert update_seconds(Loop(4, True, False), 1, "bf16") == pytest.approx(0.0478, rel=0.02)


def test_workers_that_are_slower_than_all_else_set_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 workers read 400 images of 10 ms in a second; where some batches take longer, those behind them wait."""
    spread = update_seconds(Loop(64, False, False), 8, "bf16")
    monkeypatch.setattr(bench.speed.scale, "SPREAD", 0.0)
    assert update_seconds(Loop(64, False, False), 8, "bf16") < spread
    assert update_seconds(Loop(64, False, False), 8, "bf16") == pytest.approx(64 / 400, rel=0.05)


def test_a_ring_passes_each_gradient_on_almost_twice() -> None:
    """7/8 of 234.8 MB, there and back, at 300 GB/s."""
    assert reduce_seconds(8) == pytest.approx(0.00137, rel=0.01)
    assert reduce_seconds(1) == 0


def test_an_index_is_measured_from_its_file_to_its_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    measure(2000)
    said = capsys.readouterr().out
    assert "  2,000 images, 100-10\n" in said
    assert "images come by" in said.splitlines()[-1]


def test_as_many_classes_stand_in_a_made_up_image_as_is_said() -> None:
    imageset = synthetic(4000)
    presence = imageset.class_presence("train")
    assert presence.sum() / 4000 == pytest.approx(10, rel=0.05)
    shares = presence.mean(axis=0)[1:]
    assert np.all(shares[:5] > 3 * shares[-5:])
