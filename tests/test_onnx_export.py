"""`bench export --format onnx`: what onnxruntime computes is what torch does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kept_networks import NAMES, kept, write
from PIL import Image
from torch import manual_seed, no_grad, randn
from torch.nn.functional import normalize

import bench
from bench.cli.entry import main
from bench.settings.errors import RequestError
from bench.train.network_file import write_network
from bench.use import onnx_export
from strategies.networks.build import build_network

LABELS = [0, 7, 3, 5]


def test_a_network_of_images_of_any_size_is_as_in_torch_on_20_images(tmp_path: Path) -> None:
    """The nearest class means of icarl, of which one is missing: the other way to predict."""
    pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")
    import onnx
    import onnxruntime

    manual_seed(0)
    network = build_network("small", 3).eval()
    with no_grad():
        means = normalize(network.features(randn(1, 3, 32, 32))[0].flatten(1).T[[0, 20, 40, 60]], dim=1)
    means[2] = float("nan")
    told = kept(method="icarl", predicts="method", size=None, crop=64)
    write_network(tmp_path / "n", told, network.state_dict(), {"means": means})
    segmenter = bench.load(tmp_path / "n")
    agreement = onnx_export.export_onnx(segmenter, tmp_path / "n.onnx")
    assert agreement.images == 20 and agreement.difference < 1e-5 and agreement.differing < 5 < agreement.pixels / 1e4
    session = onnxruntime.InferenceSession(tmp_path / "n.onnx", providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(1).integers(0, 256, (50, 77, 3), dtype=np.uint8)
    scores, labels = session.run(None, {"images": pixels.transpose(2, 0, 1)[None]})
    assert scores.shape == (1, 4, 50, 77) and np.allclose(scores[:, 2], -1)
    assert (labels[0] != segmenter.predict(pixels)).sum() < 3
    assert len(np.unique(labels)) > 1 and set(np.unique(labels)) <= set(LABELS)
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "n.onnx").metadata_props}
    assert json.loads(metadata["class_names"]) == NAMES and metadata["method"] == "icarl"


def test_what_cannot_be_exported_or_computes_something_else_is_refused_and_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    segmenter = bench.load(write(tmp_path / "n"))
    monkeypatch.setattr(onnx_export, "require_packages", lambda: None)
    monkeypatch.setattr(onnx_export, "_onnx_of", lambda exported: b"")
    wrong = onnx_export.Agreement(20, 0.5, 100, 20 * 32 * 32)
    monkeypatch.setattr(onnx_export, "_compared", lambda *_: wrong)
    with pytest.raises(RequestError, match=r"not as torch on 20 images: scores differ by 0\.5 .* at 100 of"):
        onnx_export.export_onnx(segmenter, tmp_path / "n.onnx")
    assert not (tmp_path / "n.onnx").exists()
    monkeypatch.undo()
    monkeypatch.setattr(onnx_export, "PACKAGES", ("a_package_that_is_not_there",))
    with pytest.raises(SystemExit) as ended:
        main(["export", str(tmp_path / "n")])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith('not_there: pip install "continual-seg-bench[onnx]"\n')


def test_a_run_s_own_pictures_are_compared_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(onnx_export, "_onnx_of", lambda exported: b"")
    monkeypatch.setattr(onnx_export, "require_packages", lambda: None)

    def compared(exported: object, content: bytes, images: list[np.ndarray]) -> onnx_export.Agreement:
        seen.extend(tuple(image.shape) for image in images)
        return onnx_export.Agreement(len(images), 0.0, 0, 1)

    monkeypatch.setattr(onnx_export, "_compared", compared)
    pixels = np.asarray(Image.new("RGB", (40, 30)))
    onnx_export.export_onnx(bench.load(write(tmp_path / "n", size=None, crop=64)), tmp_path / "o.onnx", [pixels] * 3)
    assert len(seen) == 20 and seen[:3] == [(1, 3, 30, 40)] * 3 and seen[3] != seen[2]
