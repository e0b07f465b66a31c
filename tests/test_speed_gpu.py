"""`bench speed gpu` on a CPU: everything is tiny, and everything is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cli.entry import main


@pytest.mark.long
def test_it_measures_every_method_and_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["speed", "gpu", "--device", "cpu", "--out", str(tmp_path / "gpu.json")])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and said.startswith("gpu: CPU, tiny: no measurement, torch ")
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert set(record["first_losses"]) == {"base step", "er", "ours", "mib"}
    for found in record["first_losses"].values():
        assert len(found["cpu"]) == 5 and found["difference"] == 0 and len(set(found["cpu"])) == 5
    rows = {(row["precision"], row["what"]) for row in record["rows"]}
    methods = {
        (p, m) for p in ("fp32", "tf32", "bf16") for m in ("bare loop", "er", "ours", "mib", "mir(candidates=10)")
    }
    offline = {("bf16", m) for m in ("bare loop", "finetune", "mib", "plop", "dkd")}
    assert rows == methods | offline and {row["protocol"] for row in record["rows"]} == {"online", "offline"}
    assert all(row["images_per_second"] > 0 for row in record["rows"]) and record["evaluation_images_per_second"] > 0
    assert "convolution" in record["profile"] and record["profile"] in said


def test_what_was_measured_is_kept_when_the_rest_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.speed import gpu

    def measured(case: object) -> Iterator[tuple[str, object]]:
        yield "rows", [1]
        yield "rows", [1, 2]
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu._Case, "measured", measured)
    monkeypatch.setattr(gpu, "painted_folder", lambda *_: tmp_path)
    with pytest.raises(KeyboardInterrupt):
        gpu.gpu("cpu", tmp_path / "gpu.json")
    assert json.loads((tmp_path / "gpu.json").read_text())["rows"] == [1, 2]


def test_losses_that_are_not_the_cpus_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.speed import gpu

    case = gpu._Case(gpu.torch.device("cpu"))
    case.root = gpu.painted_folder(tmp_path / "data", 36, (60, 40))
    given = iter([[1.0] * 5, [1.0, 1.0, 1.002, 1.0, 1.0]] * 4)
    monkeypatch.setattr(case, "losses", lambda *_: next(given))
    assert case.first_losses()["er"]["difference"] == pytest.approx(0.002)
    told = "first 5 losses of er: relative difference to the CPU's 2.0e-03, NOT the CPU's within 0.001"
    assert told in capsys.readouterr().out


def test_a_device_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["speed", "gpu", "--device", "gpu7"])
    assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1
