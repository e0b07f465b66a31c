"""`bench export --format onnx`: a kept network as ONNX, compared with torch before it is written."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bench.settings.errors import RequestError
from bench.use.loading import KeptNetwork
from bench.use.pixels import Pixels
from bench.use.segmenter import Segmenter
from benchmarks.resampling import image_by_pillow
from reports.atomic import write_atomic_bytes
from strategies.learning.evaluation import best_classes

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
COMPARED = 20
"""Images on which torch and onnxruntime are compared."""
MOST_DIFFERING = 1e-3
"""Of all pixels, those whose labels may differ."""
_SIDE = 224
"""Of what a network is traced with that takes images of any size."""
_LARGEST = 8192


class Agreement(NamedTuple):
    """How torch and onnxruntime agree on some images: the largest difference of scores, and pixels of other labels."""

    images: int
    difference: float
    differing: int
    pixels: int

    def __str__(self) -> str:
        told = f"scores differ by {self.difference:.2g} at most, labels at {self.differing:,} of {self.pixels:,} pixels"
        return f"as torch on {self.images} images: {told}"


class _Exported(nn.Module):
    """From uint8 RGB images (B, 3, H, W) to scores (B, C, H, W) and class ids uint8 (B, H, W)."""

    mean: Tensor
    deviation: Tensor
    ids: Tensor

    def __init__(self, network: KeptNetwork) -> None:
        super().__init__()
        kept = network.kept
        self.kept = network
        self.network = network.network
        self.network.precision = "fp32"
        self.register_buffer("mean", torch.tensor(kept.normalisation.mean)[:, None, None] * 255)
        self.register_buffer("deviation", torch.tensor(kept.normalisation.deviation)[:, None, None] * 255)
        self.register_buffer("ids", torch.tensor(kept.classes, dtype=torch.uint8))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.kept.scores((images.float() - self.mean) / self.deviation)
        return scores, self.ids[best_classes(scores)]


def require_packages() -> None:
    """Raise `RequestError` where what exports and compares is not installed."""
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise RequestError(f'--format onnx needs {name}: pip install "continual-seg-bench[onnx]"')


def export_onnx(segmenter: Segmenter, path: Path, pictures: Sequence[Pixels] = ()) -> Agreement:
    """Write a network on the CPU as ONNX, if it agrees with torch, and return how well.

    Its input `images` is uint8 (batch, 3, height, width), RGB; of the size that the run squeezes images to, of any
    where it does not. Its outputs are `scores` float32 (batch, classes, height, width) and `labels` uint8 (batch,
    height, width), the data set's class ids. What the network's header says stands in the model's metadata. They are
    compared on `pictures`, uint8 (H, W, 3), and on made ones, `COMPARED` in all. Raises `RequestError` where torch
    cannot export it, or where they do not agree.
    """
    require_packages()
    exported = _Exported(segmenter.network).eval()
    content = _onnx_of(exported)
    images = [_seen(segmenter, pixels) for pixels in [*pictures[:COMPARED], *_made(COMPARED - len(pictures))]]
    agreement = _compared(exported, content, images)
    if agreement.differing > MOST_DIFFERING * agreement.pixels:
        raise RequestError(f"{path} is not written, as onnxruntime computes something else: not {agreement}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic_bytes(path, content)
    return agreement


def _onnx_of(exported: _Exported) -> bytes:
    kept = exported.kept.kept
    height, width = (kept.size, kept.size) if kept.size else (_SIDE, _SIDE + 32)
    images = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    free = {0: "batch"} if kept.size else {0: "batch", 2: "height", 3: "width"}
    dynamic = {place: torch.export.Dim(name, min=1, max=_LARGEST) for place, name in free.items()}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                exported,
                (images,),
                dynamo=True,
                input_names=["images"],
                output_names=["scores", "labels"],
                dynamic_shapes={"images": dynamic},
                verbose=False,
            )
    except Exception as error:  # what an exporter raises differs from version to version
        reason = " ".join(str(error).split())[:300]
        raise RequestError(f"torch cannot export the network {kept.network['name']} as ONNX ({reason})") from error
    model = program.model_proto
    for key, value in asdict(kept).items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    content: bytes = model.SerializeToString()
    return content


def _compared(exported: _Exported, content: bytes, images: Sequence[Tensor]) -> Agreement:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    difference, differing, pixels = 0.0, 0, 0
    for image in images:
        with torch.no_grad():
            scores, labels = exported(image)
        there = session.run(None, {"images": image.numpy()})
        difference = max(difference, float(np.abs(there[0] - scores.numpy()).max()))
        differing += int((there[1] != labels.numpy()).sum())
        pixels += labels.numel()
    return Agreement(len(images), difference, differing, pixels)


def _seen(segmenter: Segmenter, pixels: Pixels) -> Tensor:
    """Return an image uint8 (1, 3, H, W) as the network gets it."""
    size = segmenter.input_size(pixels.shape[:2])
    return torch.from_numpy(image_by_pillow(np.ascontiguousarray(pixels.transpose(2, 0, 1)), size))[None]


def _made(count: int) -> list[Pixels]:
    """Return images of coloured spots, no two of one size."""
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (6, 8, 3), dtype=np.uint8) for _ in range(count)]
    return [
        np.asarray(Image.fromarray(spots).resize((160 + 7 * place, 120 + 5 * place), Image.Resampling.BICUBIC))
        for place, spots in enumerate(coarse)
    ]
