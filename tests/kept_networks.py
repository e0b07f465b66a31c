"""Networks that are kept, without a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from bench.train.network_file import FORMAT, Kept, write_network
from strategies.networks.build import build_network
from strategies.networks.settings import OF_IMAGENET

NAMES = ["background", "cat", "dog", "猫"]


def kept(**changes: Any) -> Kept:
    """What the header of a small network of three classes says."""
    told: dict[str, Any] = {
        "format": FORMAT,
        "scenario": "folder-2-1-disjoint",
        "strategy": "er",
        "hash": "0123456789ab",
        "seed": 0,
        "step": 1,
        "network": {"name": "small", "weights": "none"},
        "head": "linear",
        "tau": None,
        "classes": [0, 7, 3, 5],
        "class_names": NAMES,
        "palette": [(0, 0, 0), (128, 0, 0), (0, 128, 0), (0, 0, 128)],
        "normalisation": OF_IMAGENET,
        "size": 32,
        "short_side": None,
        "crop": None,
        "threads": 1,
        "precision": "fp32",
        "tf32": False,
        "batch_size": 4,
        "method": "er",
        "parameters": {},
        "memory": 10,
        "predicts": "logits",
        "versions": {"torch": "2"},
        **changes,
    }
    return Kept(**told)


def write(path: Path, **changes: Any) -> Path:
    """Write a small network with random weights that tells some pixels of noise from others."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network("small", 3).eval()
        with torch.no_grad():
            network.head.bias -= network(torch.randn(1, 3, 32, 32)).mean((0, 2, 3))
    write_network(path, kept(**changes), network.state_dict(), {})
    return path


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's header and its tensors' bytes."""
    start = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:start]), content[start:]


def joined(header: dict[str, Any], tensors: bytes) -> bytes:
    """The file of a header and bytes, the digest of which is whatever the header says."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors
