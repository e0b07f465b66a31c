"""`bench speed gpu`: what a GPU makes of a large network, in one command of a few minutes that needs no download.

Methods against a bare PyTorch loop, in each precision; peak memory, waiting for images, the evaluation, where the time
goes; and whether the device's first losses are the CPU's. On `--device cpu` everything is tiny: it shows that the
command works, and nothing else.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from bench.plan.devices import resolved_device
from bench.settings.merging import resolve_config
from bench.settings.schema import Config
from bench.settings.strategies import method_parameters, parse_strategies
from bench.speed.data import environment, painted_folder
from bench.speed.device import WARM_UP, Enough, UpdateClock, now, peak, reset_peak
from bench.train.computing import computing
from bench.train.networks import new_network, normalisation
from bench.train.template import make_template
from benchmarks.streams import SegmentationScenario, load_benchmark
from reports.atomic import write_atomic
from strategies.learning.evaluation import largest_of, pixel_counts
from strategies.learning.protocol import BaseRecipe
from strategies.learning.registry import method_class
from strategies.networks.network import SegmentationNetwork
from strategies.plugins.registry import OWN_PACKAGE

SCENARIO, CLASSES = "folder-3-3-overlapped", 3
"""As many classes in the base step as in the increment."""
METHODS = {"online": ("er", "ours", "mib", "mir(candidates=10)"), "offline": ("finetune", "mib", "plop", "dkd")}
"""By the protocol that they are measured in."""
PRECISIONS = {
    "fp32": ("runtime.precision=fp32", "runtime.tf32=false"),
    "tf32": ("runtime.precision=fp32", "runtime.tf32=true"),
    "bf16": ("runtime.precision=bf16", "runtime.tf32=true"),
}
COMPILED = ("runtime.compile=true", "runtime.fused=true")
FIRST, TOLERANCE = 5, 1e-3
"""So many losses are to be the CPU's, in relation."""


@dataclass(frozen=True)
class Scale:
    """How large the measured case is; batches are those of an update's incoming images."""

    preset: str
    settings: tuple[str, ...]
    online: int
    offline: int
    updates: int
    jpegs: int


_AS_THEY_ARE = ("evaluation.short_side=null", "evaluation.batch_size=1")
_OF_PHOTOGRAPHS = ("data.crop=512", "data.ram_gb=0", "data.workers=8", *_AS_THEY_ARE)
LARGE = Scale("paper", _OF_PHOTOGRAPHS, online=4, offline=24, updates=12, jpegs=1200)
TINY = Scale("small", ("data.crop=32", "data.size=40"), online=2, offline=2, updates=2, jpegs=72)


@dataclass(frozen=True)
class Row:
    """What was measured of a method, or of a bare loop, in a precision."""

    protocol: str
    what: str
    precision: str
    images_per_second: float
    peak_gigabytes: float
    waiting: float | None = None
    """The share of the time that the host waited for images."""


def gpu(device_name: str, out: Path | None) -> int:
    """Print everything; return 1 if the first losses differ.

    If a JSON file is named, it holds at any time what has been measured by then: a lent GPU may be taken away.
    """
    case = _Case(torch.device(resolved_device(device_name)))
    told = torch.cuda.get_device_name(case.device) if case.device.type == "cuda" else "CPU, tiny: no measurement"
    record: dict[str, Any] = {"device": told, "torch": torch.__version__, "cuda": torch.version.cuda}
    print(f"gpu: {told}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    with tempfile.TemporaryDirectory() as folder, environment("BENCH_CACHE", f"{folder}/cache"):
        case.root = painted_folder(Path(folder) / "data", case.scale.jpegs, (500, 375))
        for key, value in case.measured():
            record[key] = value
            if out is not None:
                write_atomic(out, json.dumps(record, indent=2) + "\n")
    if out is not None:
        print(out)
    return int(any(found["difference"] > TOLERANCE for found in record["first_losses"].values()))


class _Case:
    """What is measured on a device."""

    root: Path

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.scale = TINY if device.type == "cpu" else LARGE
        self.bare_speed: dict[tuple[str, str], float] = {}

    def config(self, scale: Scale, protocol: str, precision: str, *more: str) -> Config:
        """Return the settings of a case, and what is set beside."""
        batch = scale.online if protocol == "online" else scale.offline
        chosen = [f"protocol={protocol}", f"incremental.batch_size={batch}", "network.weights=none", *scale.settings]
        preset = scale.preset
        if protocol == "offline":
            chosen += ["memory.size=0", "incremental.epochs=1", "incremental.optimizer=sgd"]
            preset = "small" if preset == "small" else "mib"
        return resolve_config(SCENARIO, preset, None, [*chosen, *PRECISIONS[precision], *more])

    def benchmark(self, config: Config) -> SegmentationScenario:
        """Return its streams."""
        by, data = normalisation(config), config.data
        return load_benchmark(SCENARIO, self.root, size=data.size, normalisation=by, ram_budget=data.ram_gb * 2**30)

    def measured(self) -> Iterator[tuple[str, Any]]:
        """Measure and print everything, what takes long last, and yield it by its names in the record."""
        yield "first_losses", self.first_losses()
        rows: list[Row] = []
        for row in self.rows():
            rows.append(self.printed(row))
            yield "rows", [asdict(row) for row in rows]
        yield "evaluation_images_per_second", self.evaluation()
        yield "profile", self.profile()
        if self.device.type == "cuda":
            for row in self.compiled_rows():
                rows.append(self.printed(row))
                yield "rows", [asdict(row) for row in rows]

    # ------------------------------------------------------------------------------------------------ updates

    def rows(self) -> Iterator[Row]:
        """Measure methods and bare loops."""
        for protocol, names in METHODS.items():
            print(f"{protocol}: {self.images(protocol)} images an update, {self.scale.updates} updates after {WARM_UP}")
            for precision in PRECISIONS if protocol == "online" else ("bf16",):
                config = self.config(self.scale, protocol, precision)
                yield self.bare(config, precision, compiled=False)
                benchmark = self.benchmark(config)
                for name in names:
                    yield self.method(name, precision, config, benchmark)

    def compiled_rows(self) -> Iterator[Row]:
        """Measure bare loops and the first method of each protocol, compiled, in bf16."""
        for protocol, (name, *_) in METHODS.items():
            print(f"{protocol}, compiled: minutes of compilation")
            yield self.bare(self.config(self.scale, protocol, "bf16"), "bf16", compiled=True)
            config = self.config(self.scale, protocol, "bf16", *COMPILED)
            row = self.method(name, "bf16", config, self.benchmark(config))
            yield replace(row, what=f"{name}, compiled")

    def images(self, protocol: str) -> int:
        """Return the images of an update, those from memory among them."""
        return 2 * self.scale.online if protocol == "online" else self.scale.offline

    def printed(self, row: Row) -> Row:
        """Print a row, compared with the bare loop of its protocol and precision that is not compiled."""
        of = row.protocol, row.precision
        bare = self.bare_speed.setdefault(of, row.images_per_second)
        waiting = "" if row.waiting is None else f"   {100 * row.waiting:4.1f} % waiting for images"
        ratio = f"{bare / row.images_per_second:5.2f} x the bare loop's time"
        speed = f"{row.images_per_second:8.1f} images/s   {ratio}   {row.peak_gigabytes:6.2f} GB"
        print(f"  {row.precision:<5} {row.what:<20} {speed}{waiting}", flush=True)
        return row

    def method(self, name: str, precision: str, config: Config, benchmark: SegmentationScenario) -> Row:
        """Measure a method's updates in the harness, its images read from JPEGs and augmented."""
        clock = self.trained(name, config, benchmark, self.device, self.scale.updates)
        speed = self.images(config.protocol) / clock.seconds
        return Row(config.protocol, name, precision, speed, peak(self.device), clock.waiting)

    def trained(
        self, name: str, config: Config, benchmark: SegmentationScenario, device: torch.device, updates: int
    ) -> UpdateClock:
        """Make a method's first updates of the increment on a network with random weights."""
        request = parse_strategies([f"{OWN_PACKAGE}:{name}"])[0]
        parameters, kind = method_parameters(request, config), method_class(request.name)
        torch.manual_seed(0)
        network = new_network(config, kind.recipe(parameters), CLASSES, pretrained=False)
        clock = UpdateClock(device, updates)
        template = make_template(network, kind, parameters, config, SCENARIO, 0, device, [clock])
        with computing(config.runtime), suppress(Enough):
            template.begin(benchmark.train_stream[0])
            template.train(benchmark.train_stream[1], eval_streams=[])
        return clock

    def bare(self, config: Config, precision: str, compiled: bool) -> Row:
        """Measure a plain loop over one batch on the device: forward, cross-entropy, backward, fused SGD."""
        device, side, images = self.device, config.data.crop, self.images(config.protocol)
        assert side is not None
        torch.manual_seed(0)
        network = new_network(config, BaseRecipe(), 2 * CLASSES, pretrained=False).to(device).train()
        if compiled:
            network.backbone.compile()
        optimizer = torch.optim.SGD(network.parameters(), 1e-3, 0.9, fused=device.type == "cuda")
        x = torch.randn(images, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
        y = torch.randint(0, 1 + 2 * CLASSES, (images, side, side), device=device)
        with computing(config.runtime):
            started = 0.0
            for done in range(WARM_UP + self.scale.updates):
                if done == WARM_UP:
                    reset_peak(device)
                    started = now(device)
                optimizer.zero_grad()
                torch.autograd.backward(cross_entropy(network(x), y))
                optimizer.step()
            seconds = now(device) - started
        what = "bare loop, compiled" if compiled else "bare loop"
        return Row(config.protocol, what, precision, images * self.scale.updates / seconds, peak(device))

    # ------------------------------------------------------------------------------- evaluation, profile, first losses

    def evaluation(self) -> float:
        """Measure the evaluation of images as they are, one at a time."""
        config = self.config(self.scale, "online", "bf16")
        data, workers = self.benchmark(config).train_stream[0].data, config.data.workers
        network = new_network(config, BaseRecipe(), 2 * CLASSES, pretrained=False).to(self.device).eval()
        count, started = 4 * self.scale.updates, 0.0
        with computing(config.runtime), torch.no_grad():
            for done, (images, labels, *_) in enumerate(islice(data.batches(1, workers=workers), WARM_UP + count)):
                if done == WARM_UP:
                    started = now(self.device)
                self.evaluate(network, images.to(self.device), labels.to(self.device))
            speed = count / (now(self.device) - started)
        print(f"evaluation: {speed:.1f} images/s, one at a time")
        return speed

    def evaluate(self, network: SegmentationNetwork, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Evaluate a batch as a run does."""
        classes = largest_of(network, images, lambda: network(images))
        pixel_counts(classes, labels, network.outputs - 1, network.outputs)

    def profile(self) -> str:
        """Print where the time of ours goes: torch's profiler's first ten."""
        config = self.config(self.scale, "online", "bf16")
        on_gpu = self.device.type == "cuda"
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        with profile(activities=kinds) as profiled:
            self.trained("ours", config, self.benchmark(config), self.device, 2)
        by = f"self_{'device' if on_gpu else 'cpu'}_time_total"
        table = str(profiled.key_averages().table(sort_by=by, row_limit=10, max_name_column_width=60))
        print(f"ours, {WARM_UP + 2} updates:\n{table}")
        return table

    def first_losses(self) -> dict[str, Any]:
        """Train a small network for a moment, base step and increment, on the CPU and on the device; compare losses."""
        config, told = self.config(TINY, "online", "fp32"), {}
        benchmark, cpu = self.benchmark(config), torch.device("cpu")
        for name in ("base step", "er", "ours", "mib"):
            here, there = (self.losses(name, config, benchmark, device) for device in (cpu, self.device))
            difference = max(abs(a - b) / abs(a) for a, b in zip(here, there, strict=True))
            told[name] = {"cpu": here, "device": there, "difference": difference}
            verdict = "" if difference <= TOLERANCE else f", NOT the CPU's within {TOLERANCE:g}"
            print(f"first {FIRST} losses of {name}: relative difference to the CPU's {difference:.1e}{verdict}")
        return told

    def losses(self, name: str, config: Config, benchmark: SegmentationScenario, device: torch.device) -> list[float]:
        """Return the first losses of a method's increment, or of a base step, in fp32."""
        if name != "base step":
            clock = self.trained(name, config, benchmark, device, FIRST - WARM_UP)
            return [loss.item() for loss in clock.losses]
        torch.manual_seed(0)
        network = new_network(config, BaseRecipe(), CLASSES, pretrained=False).to(device).train()
        optimizer, losses = torch.optim.SGD(network.parameters(), 0.01, 0.9), []
        with computing(config.runtime):
            for images, labels, *_ in islice(benchmark.train_stream[0].data.batches(4), FIRST):
                optimizer.zero_grad()
                loss = cross_entropy(network(images.to(device)), labels.to(device), ignore_index=255)
                torch.autograd.backward(loss)
                optimizer.step()
                losses.append(loss.item())
        return losses
