"""The file of a kept network: any other is refused in one line, and nothing in it is executed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kept_networks import NAMES, joined, kept, split, write
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bench.train.network_file import NetworkFileError, read_kept, read_network, write_network
from bench.use.loading import KeptNetwork
from strategies.networks.build import build_network


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "networks" / "step-1.safetensors")


def sealed(header: dict[str, Any], tensors: bytes) -> bytes:
    """A file as a forger would write it, with the right digest."""
    content = joined({**header, "__metadata__": {**header["__metadata__"], "sha256": "0" * 64}}, tensors)
    return content.replace(b"0" * 64, hashlib.sha256(content).hexdigest().encode())


def test_what_was_written_comes_back_and_equal_networks_give_equal_files(tmp_path: Path) -> None:
    network, means = build_network("small", 3).to(memory_format=torch.channels_last).state_dict(), torch.randn(4, 64)
    for name in ("one", "two"):
        write_network(tmp_path / name, kept(predicts="method"), network, {"means": means})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    read = read_network(tmp_path / "one")
    assert dataclasses.replace(read.kept, sha256="0" * 64) == kept(predicts="method") and read.kept.sha256 != "0" * 64
    assert read_kept(tmp_path / "one") == read.kept
    assert list(read.method) == ["means"] and torch.equal(read.method["means"], means)
    assert read.network.keys() == network.keys()
    assert all(torch.equal(read.network[name], tensor) for name, tensor in network.items())


def test_any_reader_of_safetensors_reads_it_and_the_digest_can_be_recomputed(file: Path) -> None:
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata["scenario"] == "folder-2-1-disjoint" and json.loads(metadata["class_names"]) == NAMES
    assert json.loads(metadata["classes"]) == [0, 7, 3, 5] and len(load_file(file)) > 40
    content = file.read_bytes().replace(metadata["sha256"].encode(), b"0" * 64)
    assert hashlib.sha256(content).hexdigest() == metadata["sha256"]


def test_the_tensors_are_mapped_from_the_file(file: Path) -> None:
    tensors = read_network(file).network
    maps = Path("/proc/self/maps").read_text()
    address = tensors["backbone.stem.0.0.weight"].data_ptr()
    ranges = [line.split() for line in maps.splitlines() if line.endswith(str(file))]
    assert any(int(start, 16) <= address < int(end, 16) for start, end in (r[0].split("-") for r in ranges))


class Payload:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def without(key: str) -> Callable[[bytes], bytes]:
    return lambda content: changed(content, lambda told: told.pop(key))


def saying(key: str, text: str) -> Callable[[bytes], bytes]:
    return lambda content: changed(content, lambda told: told.update({key: text}))


def changed(content: bytes, change: Callable[[dict[str, str]], object]) -> bytes:
    header, tensors = split(content)
    change(header["__metadata__"])
    return sealed(header, tensors)


def flipped(place: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda content: b"", "an empty file"),
    "a few bytes": (lambda content: content[:5], "no safetensors file"),
    "cut in its header": (lambda content: content[:300], r"cut, its header alone is [\d,]+ bytes and the file 300"),
    "cut": (lambda content: content[:-1000], r"cut, [\d,]+ bytes where its header tells of [\d,]+"),
    "too long": (lambda content: content + b"\0", r"too long, [\d,]+ bytes where its header tells of [\d,]+"),
    "a bit of its tensors": (flipped(-77), "damaged, its content has not the SHA-256 in its header"),
    "a bit of its length": (flipped(6), "no safetensors file"),
    "a header without an end": (lambda content: (2**62).to_bytes(8, "little") + content[8:], "no safetensors file"),
    "no JSON": (lambda content: content[:8] + b"?" + content[9:], "its header is not JSON"),
    "nested": (lambda content: (90_000).to_bytes(8, "little") + b"[" * 90_000, "its header is not JSON"),
    "a list": (lambda content: (2).to_bytes(8, "little") + b"[]", "its header is not JSON"),
    "of something else": (saying("format", "pt"), "not a network that `bench run` kept"),
    "no class names": (without("class_names"), r"not as `bench run` writes it \(class_names is missing\)"),
    "an unknown word": (saying("predicts", "magic"), r"not as `bench run` writes it \(predicts='magic'"),
    "broken JSON": (saying("classes", "[0, 7"), "not as `bench run` writes it"),
    "a class too many": (saying("class_names", '["a", "b"]'), "4 classes and 2 names"),
    "a class of 999": (saying("classes", "[0, 7, 3, 999]"), r"not as `bench run` writes it \(classes\.3=999"),
    "other classes": (
        lambda content: changed(
            content,
            lambda told: told.update(classes="[0, 7]", class_names='["a", "b"]', palette="[[0,0,0],[1,1,1]]"),
        ),
        r"its tensors are not those of the network in its header \(.*size mismatch for head\.weight",
    ),
    "another architecture": (
        saying("network", '{"name": "deeplabv3-resnet50", "weights": "none"}'),
        "its tensors are not those of the network in its header",
    ),
    "an unknown architecture": (saying("network", '{"name": "x", "weights": "none"}'), "unknown network 'x'"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_any_other_file_is_refused_in_one_line(file: Path, name: str) -> None:
    damage, told = DAMAGES[name]
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=told) as refused:
        KeptNetwork(file, torch.device("cpu"))
    assert "\n" not in str(refused.value)


def test_not_a_bit_of_it_can_be_another(file: Path) -> None:
    content = file.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for place in [*range(0, header, 211), *range(header, len(content), 20_011)]:
        file.write_bytes(flipped(place)(content))
        with pytest.raises(NetworkFileError):
            read_network(file)


def test_foreign_files_are_refused_and_nothing_in_them_is_executed(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    (tmp_path / "pickle").write_bytes(pickle.dumps(Payload(trap)))
    torch.save({"state": Payload(trap)}, tmp_path / "torch")
    save_file({"w": torch.ones(2)}, tmp_path / "other", {"format": "pt"})
    save_file({"w": torch.ones(2)}, tmp_path / "bare")
    lines = {"pickle": "no safetensors file", "torch": "no safetensors file"}
    for name in ("pickle", "torch", "other", "bare", "absent", "."):
        with pytest.raises(NetworkFileError, match=lines.get(name, re.escape(str(tmp_path)))):
            read_network(tmp_path / name)
    assert not trap.exists()
