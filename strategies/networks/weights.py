"""`network.weights`: which file holds them, its digest, and their way into a backbone."""

from __future__ import annotations

import hashlib
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from strategies.networks.backbone import Backbone
from strategies.networks.settings import NO_WEIGHTS, NetworkSettings
from strategies.networks.sources import Packaged, Source, WeightsError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""What a file of weights ends with."""
_WRAPPED = ("state_dict", "model")
"""Below these keys training scripts keep a state dict."""


def is_file_name(weights: str) -> bool:
    """Whether `network.weights` names a file."""
    return weights.endswith(SUFFIXES)


def weights_fault(kind: type[Backbone], settings: NetworkSettings) -> str | None:
    """Return why there are no such weights for a network, `weights=x: ...`; nothing is downloaded."""
    known = kind.weights(settings)
    if settings.weights == NO_WEIGHTS:
        return None
    if source := known.get(settings.weights):
        return _unreached(kind, settings, source) if isinstance(source, Packaged) else None
    if not is_file_name(settings.weights):
        return f"weights={settings.weights}: for network.name={settings.name} there are {_choices(list(known))}"
    return None if Path(settings.weights).is_file() else f"weights={settings.weights}: there is no such file"


def weights_file(kind: type[Backbone], settings: NetworkSettings) -> Path | None:
    """Return the file that holds a network's weights, None for `none`; it is downloaded if need be.

    Raises `WeightsError`.
    """
    if settings.weights == NO_WEIGHTS:
        return None
    source = _source(kind, settings)
    if source is None:
        return Path(settings.weights)
    if unreached := _unreached(kind, settings, source):
        raise WeightsError(f"network.{unreached}")
    return source.path()


def _unreached(kind: type[Backbone], settings: NetworkSettings, source: Source) -> str | None:
    """Return why weights cannot be got from their source, which is tried, and the other ways; None where they can."""
    try:
        source.path()
    except WeightsError as error:
        others = [name for name in kind.weights(settings) if name.startswith("package:") and name != settings.weights]
        return f"weights={settings.weights}: {error}; or set network.weights to {_choices(others)}"
    return None


def weights_digest(kind: type[Backbone], settings: NetworkSettings) -> str | None:
    """Return the SHA-256 of a network's weights, None for `none`; where one is published it is that, or its beginning.

    Raises `WeightsError`.
    """
    source = None if settings.weights == NO_WEIGHTS else _source(kind, settings)
    if source and source.sha256:
        return source.sha256
    file = weights_file(kind, settings)
    try:
        return _digest(file, file.stat().st_mtime_ns) if file else None
    except OSError as error:
        raise WeightsError(f"network.weights={settings.weights}: {error.strerror}") from error


def load_weights(backbone: Backbone, settings: NetworkSettings) -> None:
    """Let a backbone start from its settings' weights; raise `WeightsError` where that cannot be done.

    A file may hold a state dict of the backbone, of a network around it, or what is published for it.
    """
    file = weights_file(type(backbone), settings)
    if file is None:
        return
    try:
        tensors = read_tensors(file)
        own = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items()}
        if backbone.state_dict().keys() <= own.keys():
            Backbone.load(backbone, own)
        else:
            backbone.load(tensors)
    except WeightsError as error:
        raise WeightsError(f"network.weights={settings.weights}: {error}") from error


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file or of a state dict, on the CPU; no code in it is run.

    Raises `WeightsError`.
    """
    try:
        content: Any = _read_safetensors(file) if file.suffix == ".safetensors" else _read_state_dict(file)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"{file} cannot be read as weights ({reason[:120]})") from error
    for key in _WRAPPED:
        content = content.get(key, content) if isinstance(content, dict) else content
    named = content if isinstance(content, dict) else {}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{file} holds no tensors by name")
    return tensors


def _read_state_dict(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)


def _read_safetensors(file: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(error) from error


def _source(kind: type[Backbone], settings: NetworkSettings) -> Source | None:
    """Where weights that a network knows come from; None for a file."""
    return kind.weights(settings).get(settings.weights)


def _choices(names: list[str]) -> str:
    return f"{', '.join([*names, 'a file (' + ', '.join(SUFFIXES) + ')'])} or {NO_WEIGHTS}"


@cache
def _digest(file: Path, changed: int) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
