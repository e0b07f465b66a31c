"""The file of a kept network: safetensors, whose header tells what the tensors are, under a seal.

The header's `__metadata__` has texts as they are and everything else as JSON. Its `sha256` is the digest of the whole
file with 64 zeros in the digest's place, so no bit of the file can change unnoticed. Nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as validated
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bench.settings.checking import checked
from bench.settings.errors import RequestError
from reports.atomic import write_atomic_parts
from strategies.networks.settings import STRICT, HeadName, Normalisation, Precision

FORMAT: Literal["continual-seg-bench network 1"] = "continual-seg-bench network 1"
MOST_HEADER = 10_000_000
"""Bytes; what says that its header is longer is no network."""
_LENGTH = 8
"""Bytes at the beginning that tell how long the header is."""
_UNSEALED = "0" * 64
_DTYPES = {
    "torch.float64": "F64", "torch.float32": "F32", "torch.float16": "F16", "torch.bfloat16": "BF16",
    "torch.int64": "I64", "torch.int32": "I32", "torch.int16": "I16", "torch.int8": "I8", "torch.uint8": "U8",
    "torch.bool": "BOOL",
}  # fmt: skip
"""The format's names of torch's types."""
_TEXTS = ("format", "hash", "head", "method", "precision", "predicts", "scenario", "sha256", "strategy")
"""Fields of the header that are texts: they stand there as they are."""

Level = Annotated[int, Field(ge=0, le=255)]
Seen = Annotated[int, Field(ge=16, le=4096)]


class NetworkFileError(RequestError):
    """A file is no network of ours, or is damaged: one line that names it and what is wrong with it."""


@validated(frozen=True, config=STRICT)
class Kept:
    """What the header of a kept network says."""

    format: Literal["continual-seg-bench network 1"]
    scenario: str
    """The name under which its run's tables have it."""
    strategy: str
    hash: str
    """Of the run."""
    seed: int
    step: Annotated[int, Field(ge=0)]
    """After which it was kept."""
    network: dict[str, Any]
    """The architecture: the settings of `network`, its name among them."""
    head: HeadName
    tau: Annotated[float, Field(gt=0)] | None
    """Temperature of a cosine head."""
    classes: Annotated[list[Level], Field(min_length=2, max_length=255)]
    """By output, the background first: the class's id in the data set's label maps."""
    class_names: list[str]
    """By output."""
    palette: list[tuple[Level, Level, Level]]
    """By output: red, green, blue."""
    normalisation: Normalisation
    size: Seen | None
    """Images are squeezed to so many pixels a side."""
    short_side: Seen | None
    """Or their shorter side is scaled to so many; neither: as they are."""
    crop: int | None
    """Of the training images, pixels a side."""
    threads: Annotated[int, Field(ge=1, le=1024)]
    precision: Precision
    tf32: bool
    batch_size: Annotated[int, Field(ge=1, le=65536)]
    """Images that were evaluated together: how many there are changes the last bits of scores."""
    method: str
    parameters: dict[str, Any]
    """The method's, and the next its images in memory: what it is built from."""
    memory: int
    predicts: Literal["logits", "method"]
    """Whether the network's scores tell the prediction, which are its logits where its head makes nothing else of them,
    or the method's own, of which it has tensors here."""
    versions: dict[str, str | None]
    """Of Python and of the packages that it was trained by."""
    groups: list[Annotated[int, Field(ge=1)]] | None = None
    """How many classes each step added, of a `grouped` head, whose layers that tells."""
    sha256: str = _UNSEALED


@dataclass(frozen=True)
class NetworkFile:
    """A kept network as it was read: what it is, the network's tensors and the method's, by name."""

    kept: Kept
    network: dict[str, Tensor]
    method: dict[str, Tensor]


_OF_METHOD = "method."
"""What the names of a method's tensors begin with; a network's begin with `backbone.` or `head.`."""


def write_network(path: Path, kept: Kept, network: Mapping[str, Tensor], method: Mapping[str, Tensor]) -> None:
    """Write a network, on any device; the file appears by one rename, and equal networks give equal files."""
    named = {**network, **{f"{_OF_METHOD}{name}": tensor for name, tensor in method.items()}}
    order = sorted(named, key=lambda name: (-named[name].element_size(), name))  # so that each one is aligned
    tensors = {name: named[name].detach().cpu().contiguous() for name in order}
    ends = list(accumulate(tensor.nbytes for tensor in tensors.values()))
    header: dict[str, Any] = {"__metadata__": _metadata(kept)}
    for (name, tensor), end in zip(tensors.items(), ends, strict=True):
        place = [end - tensor.nbytes, end]
        header[name] = {"dtype": _DTYPES[str(tensor.dtype)], "shape": list(tensor.shape), "data_offsets": place}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH)
    head = len(text).to_bytes(_LENGTH, "little") + text
    parts = [_bytes_of(tensor) for tensor in tensors.values()]
    sealed = head.replace(_UNSEALED.encode(), _digest(head, *parts).encode())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic_parts(path, [sealed, *parts])


def read_kept(path: Path) -> Kept:
    """Return what a network's header says, without a look at its tensors; raise `NetworkFileError`."""
    with _mapped(path) as content:
        return _kept(path, _header(path, content))


def read_network(path: Path) -> NetworkFile:
    """Return a network, its tensors mapped from the file; raise `NetworkFileError` where a bit of it has changed."""
    with _mapped(path) as content:
        header = _header(path, content)
        kept = _kept(path, header)
        _require_whole(path, content, header, kept.sha256)
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()  # the file itself is no mapping
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise NetworkFileError(f"{path}: refused, {' '.join(str(error).split())}") from None
    of_method = {name.removeprefix(_OF_METHOD): t for name, t in tensors.items() if name.startswith(_OF_METHOD)}
    return NetworkFile(kept, {n: t for n, t in tensors.items() if not n.startswith(_OF_METHOD)}, of_method)


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.flatten().view(torch.uint8).numpy().data


def _metadata(kept: Kept) -> dict[str, str]:
    told = {**asdict(kept), "sha256": _UNSEALED}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    """Give a file's content, which is read where it is looked at."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise NetworkFileError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise NetworkFileError(f"{path}: an empty file") from None
    with mapped, memoryview(mapped) as content:
        yield content


def _header(path: Path, content: memoryview) -> dict[str, Any]:
    """Return the header of a safetensors file; raise `NetworkFileError` for any other."""
    length = int.from_bytes(content[:_LENGTH], "little")
    if len(content) < _LENGTH or length > MOST_HEADER:
        raise NetworkFileError(f"{path}: no safetensors file")
    if _LENGTH + length > len(content):
        raise NetworkFileError(f"{path}: cut, its header alone is {length:,} bytes and the file {len(content):,}")
    try:
        header = json.loads(bytes(content[_LENGTH : _LENGTH + length]))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise NetworkFileError(f"{path}: no safetensors file, or a damaged one: its header is not JSON")
    return header


def _kept(path: Path, header: Mapping[str, Any]) -> Kept:
    """Return what the header says of the network; raise `NetworkFileError` where it is not as we write it."""
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise NetworkFileError(f"{path}: not a network that `bench run` kept: its header does not say `{FORMAT}`")
    try:
        told = {key: text if key in _TEXTS else json.loads(text) for key, text in metadata.items()}
        kept = checked(Kept, told)
    except (RequestError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NetworkFileError(f"{path}: its header is not as `bench run` writes it ({reason})") from None
    if not len(kept.classes) == len(kept.class_names) == len(kept.palette):
        raise NetworkFileError(f"{path}: its header has {len(kept.classes)} classes and {len(kept.class_names)} names")
    if kept.groups is not None and 1 + sum(kept.groups) != len(kept.classes):
        raise NetworkFileError(f"{path}: its header has {len(kept.classes)} classes in groups of {kept.groups}")
    return kept


def _require_whole(path: Path, content: memoryview, header: Mapping[str, Any], digest: str) -> None:
    """Raise `NetworkFileError` where a file is longer or shorter than its header says, or has another digest."""
    start = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    try:
        end = start + max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    except (KeyError, IndexError, TypeError, ValueError):
        raise NetworkFileError(f"{path}: its header does not say where its tensors are") from None
    if end != len(content):
        what = "cut" if len(content) < end else "too long"
        raise NetworkFileError(f"{path}: {what}, {len(content):,} bytes where its header tells of {end:,}")
    head = bytes(content[:start]).replace(digest.encode(), _UNSEALED.encode())
    if _digest(head, content[start:]) != digest:
        raise NetworkFileError(f"{path}: damaged, its content has not the SHA-256 in its header")


def _digest(*parts: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
