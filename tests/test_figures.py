"""Figure 3, forgetting, every class's IoU and accuracy against cost: what they show, and that their bytes are fixed."""

from __future__ import annotations

import csv
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from usual import usual

import reports.style
from reports.class_heatmap import write_class_heatmap
from reports.cost_accuracy import write_cost_accuracy
from reports.curves import FIGURE_3, write_curves, write_figure3
from reports.files import RecordError
from reports.forgetting import forgetting, write_forgetting
from reports.records import Run, find_runs
from reports.rows import METHODS
from reports.run_writer import RunWriter
from reports.spec import SCHEMA
from reports.style import METHOD_STYLES, display_name, line_styles, look_of
from reports.tables import frame
from strategies.learning.registry import STRATEGIES, method_class

SCENARIO = "voc-2-1-disjoint"
WRITERS = {
    "curves": write_curves,
    "forgetting": write_forgetting,
    "classes": write_class_heatmap,
    "cost": write_cost_accuracy,
}


def matrix(per_cent: list[int]) -> np.ndarray:
    """Pixel counts that give every class this IoU, if equal: of 100 + p pixels 2p right, 100 - p missed or false."""
    size = len(per_cent)
    counts = np.diag(2 * np.array(per_cent))
    counts[np.arange(size), np.roll(np.arange(size), 1)] += 100 - np.array(per_cent)
    return counts


def write_run(out: Path, ious: list[list[int]], **changes: Any) -> Path:
    """A run whose classes have these IoU after each step, background first."""
    sizes = [len(each) for each in ious]
    steps = [
        {"step": t, "classes": list(range(first, last))}
        for t, (first, last) in enumerate(zip([1, *sizes[:-1]], sizes, strict=True))
    ]
    cost = {"incoming_batches": 10, "seconds": changes.pop("seconds", 5.0), "forward_passes": 10}
    memory, skipped = changes.pop("memory", 100), changes.pop("skipped", 0)
    spec: dict[str, Any] = {
        "schema": SCHEMA,
        "scenario": SCENARIO,
        "strategy": "er",
        "seed": 0,
        "hash": f"m{memory}",
        "method": {"name": "er", "parameters": {}},
        "config": {"memory": {"size": memory}},
        "conventions": {"future_classes": "background", "background_in_mean": True},
        "class_names": ["background", *(f"class_{number}$" for number in range(1, sizes[-1]))],
        "steps": steps,
        **changes,
    }
    path = out / spec["scenario"] / spec["strategy"] / f"{spec['hash']}-seed{spec['seed']}"
    writer = RunWriter(path)
    writer.start(spec)
    for step, each in enumerate(ious):
        if step >= skipped:
            writer.add_step(matrix(each), cost if step else {})
    writer.finish()
    return path


TWO_STEPS = [[60, 60, 60], [50, 50, 50, 50]]


def texts(path: Path) -> str:
    """The words of an SVG, a line each."""
    return "\n".join(re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8")))


# ---------------------------------------------------------------- style


def of_protocol(name):
    """The methods that are trained by it, and joint."""
    return [method for method in METHODS if {name, "joint"} & set(method_class(method).protocols)]


FAMILIES = {"ilt": "lwf", "pi": "ewc", "rw": "ewc", "ssul-m": "ssul", "dkd-m": "dkd"}
"""Offline methods with the colour of another."""


@pytest.mark.parametrize("protocol", ["online", "offline"])
def test_every_method_of_a_protocol_has_its_own_marker_and_name_and_every_family_its_colour(protocol):
    assert set(METHOD_STYLES) == set(METHODS) and set(METHODS) == {
        name.rpartition(":")[2] for name in STRATEGIES.built_in_names()
    }
    assert len({look.name for look in METHOD_STYLES.values()}) == len(METHODS)
    methods = of_protocol(protocol)
    assert len({METHOD_STYLES[method].marker for method in methods}) == len(methods) >= 10
    colours = {FAMILIES.get(method, method): METHOD_STYLES[method].colour for method in methods}
    assert len(set(colours.values())) == len(colours) >= 10
    assert all(METHOD_STYLES[method].colour == METHOD_STYLES[kin].colour for method, kin in FAMILIES.items())


# The full form of each deficiency, on linear RGB: Machado, Oliveira & Fernandes, IEEE TVCG 15(6), 2009.
COLOUR_BLIND = {
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour: str, seen: list[list[float]]) -> np.ndarray:
    """CIELAB (D65) of a colour as it is seen."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(np.array(seen) @ linear, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", COLOUR_BLIND)
def test_no_two_methods_look_alike_to_the_colour_blind(kind):
    """Tol's muted scheme, for comparison, brings two of ten methods within 6."""
    seen = [lab(colour, COLOUR_BLIND[kind]) for colour in {look.colour for look in METHOD_STYLES.values()}]
    distances = [np.linalg.norm(seen[i] - seen[j]) for i in range(len(seen)) for j in range(i)]
    assert min(distances) > 18


def test_variants_share_the_colour_and_differ_in_line():
    rows = [("ours", ""), ("ours(head=linear)", ""), ("ours(sampling=uniform)", ""), ("er", ""), ("er", "lr=1")]
    lines = line_styles(rows)
    assert lines["ours", ""] == lines["er", ""] == "-"
    assert len({str(lines[row]) for row in rows[:3]}) == 3 and lines["er", "lr=1"] != "-"
    assert line_styles([("ours(head=linear)", "")])["ours(head=linear)", ""] != "-"
    assert display_name("ours(head=linear)", "memory.size=20") == "Ours (head=linear) [memory.size=20]"


def test_a_method_from_elsewhere_has_its_own_name_and_always_the_same_look():
    assert look_of("theirs") == look_of("theirs") and look_of("theirs").name == "theirs"
    assert look_of("theirs").colour not in {look.colour for look in METHOD_STYLES.values()}


def test_styles_and_palettes_load_without_matplotlib_or_torch():
    code = "import sys, reports.style, reports.palettes; print({'matplotlib', 'torch', 'pandas'} & set(sys.modules))"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---------------------------------------------------------------- Figure 3


def figure3_run(out: Path, scenario: str, strategy: str = "er", **changes: Any) -> Path:
    return write_run(out, TWO_STEPS, scenario=scenario, strategy=strategy, **changes)


def test_figure_3_has_voc_at_the_left_ade_at_the_right_and_one_legend(tmp_path):
    figure3_run(tmp_path, "voc-15-1-disjoint", "er")
    figure3_run(tmp_path, "ade-50-50-disjoint", "ours")
    paths = write_figure3(find_runs(tmp_path), tmp_path / "out")
    assert [path.name for path in paths] == ["figure3.png", "figure3.pdf", "figure3.svg"]
    words = texts(paths[2]).splitlines()
    panels = ["voc-15-1-disjoint", "ade-100-10-disjoint", "voc-15-1-overlapped", "ade-50-50-disjoint"]
    assert [word for word in words if word in panels] == panels
    assert words.count("ER") == words.count("Ours") == 1
    assert words.count("no finished run") == 2


def test_figure_3_is_on_the_embedded_sets_when_asked_or_when_there_is_nothing_else(tmp_path):
    figure3_run(tmp_path, "shapes-15-1-disjoint")
    runs = find_runs(tmp_path)
    for on in (None, "shapes", "scenes"):
        (path,) = write_figure3(runs, tmp_path / "out", on, ["svg"])
        words = texts(path)
        assert "voc-15-1" not in words and "scenes-100-10-disjoint" in words
        assert "embedded data set shapes, not VOC/ADE results" in words
    (path,) = write_figure3(runs, tmp_path / "out", "voc", ["svg"])
    assert texts(path).count("no finished run") == len(FIGURE_3)
    figure3_run(tmp_path, "voc-15-1-overlapped")
    (path,) = write_figure3(find_runs(tmp_path), tmp_path / "out", formats=["svg"])
    assert "shapes" not in texts(path)


def test_figure_3_leaves_out_other_memories_and_the_ablation(tmp_path):
    figure3_run(tmp_path, "voc-15-1-disjoint", "er")
    figure3_run(tmp_path, "voc-15-1-disjoint", "er", memory=20)
    figure3_run(tmp_path, "voc-15-1-disjoint", "ours(head=linear)")
    (path,) = write_figure3(find_runs(tmp_path), tmp_path / "out", formats=["svg"])
    assert "memory" not in texts(path) and "Ours" not in texts(path) and "ER" in texts(path)


def test_a_single_seed_has_no_band_and_n_is_stated(tmp_path, monkeypatch):
    bands: list[int] = []
    original = reports.style.write_figure

    def spy(figure: Figure, stem: Path, formats: list[str]) -> list[Path]:
        bands.append(sum(len(axes.collections) for axes in figure.axes))
        return original(figure, stem, formats)

    monkeypatch.setattr("reports.panels.write_figure", spy)
    write_run(tmp_path, TWO_STEPS)
    (one,) = write_curves(find_runs(tmp_path), tmp_path / "one", ["svg"])
    write_run(tmp_path, [[50, 50, 50], [40, 40, 40, 40]], seed=3)
    write_run(tmp_path, TWO_STEPS, seed=0, strategy="ours")
    (two,) = write_curves(find_runs(tmp_path), tmp_path / "two", ["svg"])
    assert bands == [0, 1]
    assert "n = 1, seed 0" in texts(one) and "standard deviation" not in texts(one)
    assert "n = 2, seeds 0, 3; Ours: n = 1" in texts(two) and "band: one standard deviation" in texts(two)


def test_an_unknown_data_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'cityscapes': allowed are voc, ade, shapes, scenes"):
        write_figure3([], tmp_path, on="cityscapes")


# ---------------------------------------------------------------- forgetting


def three_steps(out: Path, **changes: Any) -> Run:
    """Base 60 -> 40 -> 50; the class of step 1 is 80 when learned, then 30."""
    path = write_run(out, [[60, 60], [40, 40, 40], [50, 50, 50, 50]], scenario="voc-1-1-disjoint", **changes)
    rewritten = (path / "steps.csv").read_text().splitlines()
    header = rewritten[0].split(",")
    for place, value in ((2, "80.0000"), (3, "30.0000")):
        cells = rewritten[place].split(",")
        cells[header.index("step_1")] = value
        rewritten[place] = ",".join(cells)
    (path / "steps.csv").write_text("\n".join(rewritten) + "\n")
    (run,) = [run for run in find_runs(out) if run.path == path]
    return run


def test_forgetting_and_backward_transfer_worked_out_by_hand(tmp_path):
    rows = forgetting(frame([three_steps(tmp_path)]))
    assert rows["step"].tolist() == [1, 2] and rows["classes"].tolist() == [2, 3]
    # Step 1: the base classes, 60 at best and at first, now 40.
    # Step 2: base 60 at best, now 50; step 1's class 80 at best and at first, now 30. The new class does not count.
    assert rows["forgetting"].tolist() == pytest.approx([20, (10 + 50) / 2])
    assert rows["backward_transfer"].tolist() == pytest.approx([-20, (-10 - 50) / 2])


def test_forgetting_is_from_the_best_step_backward_transfer_from_the_first(tmp_path):
    write_run(tmp_path, [[40, 40], [70, 70, 70], [50, 50, 50, 50]], scenario="voc-1-1-disjoint")
    rows = forgetting(frame(find_runs(tmp_path)))
    assert rows["forgetting"].tolist() == pytest.approx([-30, ((70 - 50) + (70 - 50)) / 2])
    assert rows["backward_transfer"].tolist() == pytest.approx([30, ((50 - 40) + (50 - 70)) / 2])


def test_without_the_background_in_the_mean_the_base_group_is_without_it_too(tmp_path):
    spec = {"future_classes": "background", "background_in_mean": False}
    run = three_steps(tmp_path, conventions=spec)
    lines = (run.path / "steps.csv").read_text().splitlines()
    for place, value in ((1, "90.0000"), (2, "85.0000"), (3, "80.0000")):
        lines[place] = ",".join([*lines[place].split(",")[:-1], value])
    (run.path / "steps.csv").write_text("\n".join(lines) + "\n")
    rows = forgetting(frame(find_runs(tmp_path)))
    assert rows["forgetting"].tolist() == pytest.approx([5, (10 + 50) / 2])


def test_a_run_measured_at_its_end_alone_has_forgotten_nothing_that_is_known(tmp_path):
    write_run(tmp_path, TWO_STEPS, strategy="joint", skipped=1)
    (row,) = forgetting(frame(find_runs(tmp_path))).to_dict("records")
    assert math.isnan(row["forgetting"]) and math.isnan(row["backward_transfer"])
    *_, svg, table = write_forgetting(find_runs(tmp_path), tmp_path / "out")
    assert "no group was measured after two steps" in texts(svg)
    assert table.read_text().splitlines()[1].endswith(",1,0,,,,")


def test_the_forgetting_table_has_mean_and_deviation_over_seeds(tmp_path):
    for seed, last in ((0, 50), (1, 44)):
        write_run(tmp_path, [[60, 60, 60], [last] * 4], seed=seed)
    paths = write_forgetting(find_runs(tmp_path), tmp_path / "out")
    assert [path.name for path in paths] == [f"{SCENARIO}-forgetting.{end}" for end in ("png", "pdf", "svg", "csv")]
    with paths[-1].open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["strategy"], row["step"], row["n"], row["seeds"]) == ("er", "1", "2", "0 1")
    assert (row["forgetting_mean"], row["backward_transfer_mean"]) == ("13.0000", "-13.0000")
    assert row["forgetting_std"] == f"{6 / math.sqrt(2):.4f}"


# ---------------------------------------------------------------- classes and costs


def shown_figure(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written from now on."""
    figures: list[Figure] = []
    original = reports.style.write_figure
    monkeypatch.setattr("reports.panels.write_figure", lambda f, *rest: figures.append(f) or original(f, *rest))
    return figures


def test_the_heat_map_has_a_row_per_class_and_hatches_what_is_not_yet_learned(tmp_path, monkeypatch):
    figures = shown_figure(monkeypatch)
    write_run(tmp_path, [[100, 100, 100], [0, 0, 0, 0]])
    write_class_heatmap(find_runs(tmp_path), tmp_path / "out", ["png"])
    axes = figures[0].axes[0]
    pixels = axes.images[0].get_array()
    assert pixels.shape == (4, 2, 4)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["background", *(f"class_{n}$" for n in (1, 2, 3))]
    np.testing.assert_array_equal(pixels[3, 0], 0)  # the hatching behind it shows
    assert axes.patch.get_hatch()
    yellow, violet = pixels[0, 0], pixels[3, 1]
    assert yellow[0] > 0.9 and violet[2] > 0.3 and violet[1] < 0.1


def test_the_heat_map_is_the_mean_over_the_seeds_in_which_a_class_occurs(tmp_path, monkeypatch):
    figures = shown_figure(monkeypatch)
    for seed, last in ((0, [20] * 4), (1, [60] * 4)):
        write_run(tmp_path, [[50, 50, 50], last], seed=seed)
    write_run(tmp_path, [[50, 50, 50], [40] * 4], strategy="ours")
    write_class_heatmap(find_runs(tmp_path), tmp_path / "out", ["png"])
    er, ours = (axes.images[0].get_array() for axes in figures[0].axes[:2])
    np.testing.assert_allclose(er, ours)


def test_runs_that_learn_in_another_order_share_no_heat_map(tmp_path):
    write_run(tmp_path, TWO_STEPS)
    write_run(tmp_path, TWO_STEPS, strategy="ours", class_names=["background", "b", "a", "c"])
    with pytest.raises(RecordError, match="differ in their classes"):
        write_class_heatmap(find_runs(tmp_path), tmp_path / "out")


def cost_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> Any:
    figures = shown_figure(monkeypatch)
    for strategy, value in seconds.items():
        write_run(tmp_path, TWO_STEPS, strategy=strategy, seconds=value)
    write_cost_accuracy(find_runs(tmp_path), tmp_path / "out", ["svg"])
    return figures[0].axes[0]


def test_the_cost_axis_is_logarithmic_beyond_a_decade_alone(tmp_path, monkeypatch):
    assert cost_axes(tmp_path / "a", monkeypatch, {"er": 1.0, "ours": 10.0}).get_xscale() == "linear"
    monkeypatch.undo()
    assert cost_axes(tmp_path / "b", monkeypatch, {"er": 1.0, "ours": 10.1}).get_xscale() == "log"


def test_points_are_labelled_and_no_two_labels_overlap(tmp_path, monkeypatch):
    """All ten methods of a protocol in one spot."""
    methods = of_protocol("online")
    axes = cost_axes(tmp_path, monkeypatch, {name: 5.0 + 0.001 * place for place, name in enumerate(methods)})
    assert {text.get_text() for text in axes.texts} == {METHOD_STYLES[method].name for method in methods}
    axes.figure.draw_without_rendering()
    pixels = [super(type(text), text).get_window_extent() for text in axes.texts]
    assert not any(pixels[i].overlaps(pixels[j]) for i in range(len(pixels)) for j in range(i))


def test_a_method_without_a_cost_per_incoming_batch_is_named(tmp_path):
    write_run(tmp_path, TWO_STEPS, strategy="er")
    write_run(tmp_path, TWO_STEPS, strategy="joint", seconds=0.0)
    (path,) = write_cost_accuracy(find_runs(tmp_path), tmp_path / "out", ["svg"])
    assert "without a cost per incoming batch: Joint" in texts(path)


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", usual(WRITERS, "curves", "cost"))
def test_equal_runs_give_equal_files_in_any_order_and_on_any_day(tmp_path, monkeypatch, name):
    for strategy in ("er", "ours"):
        for seed in (0, 1):
            write_run(tmp_path / "runs", [[60 + seed] * 3, [50 - seed] * 4], strategy=strategy, seed=seed)
    runs = find_runs(tmp_path / "runs")
    first = [path.read_bytes() for path in WRITERS[name](runs, tmp_path / "a")]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert [path.read_bytes() for path in WRITERS[name](runs[::-1], tmp_path / "b")] == first


@pytest.mark.parametrize("name", WRITERS)
def test_runs_of_two_conventions_are_never_in_one_figure(tmp_path, name):
    write_run(tmp_path, TWO_STEPS)
    write_run(tmp_path, TWO_STEPS, strategy="ours", conventions={"future_classes": "ignore"})
    with pytest.raises(RecordError, match="convention"):
        WRITERS[name](find_runs(tmp_path), tmp_path / "out")


@pytest.mark.parametrize("name", WRITERS)
def test_a_scenario_without_a_run_gets_a_figure_that_says_so(tmp_path, name):
    paths = WRITERS[name]([], tmp_path, ["svg"], [SCENARIO])
    assert "no finished run" in texts(paths[0]) and WRITERS[name]([], tmp_path, ["svg"]) == []


@pytest.mark.parametrize("name", WRITERS)
def test_embedded_data_sets_are_labelled_and_odd_names_are_drawn_as_they_are(tmp_path, name):
    for strategy in ("er", "them_$x(a_1=50%)"):
        write_run(tmp_path, TWO_STEPS, scenario="shapes-2-1-disjoint", strategy=strategy)
    path = WRITERS[name](find_runs(tmp_path), tmp_path / "out", ["svg"])[0]
    words = texts(path).replace("\n", " ")
    assert "embedded data set shapes, not VOC/ADE results" in words and "them_$x" in words and "a_1=50%" in words


@pytest.mark.parametrize("name", WRITERS)
def test_an_unknown_format_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="'gif': allowed are png, pdf, svg"):
        WRITERS[name]([], tmp_path, ["gif"])


def test_runs_of_two_memories_have_panels_of_their_own(tmp_path):
    for memory in (20, 100):
        write_run(tmp_path, [[60, 60], [40] * 3, [50] * 4], memory=memory)
    for write in (write_curves, write_forgetting):
        words = texts(write(find_runs(tmp_path), tmp_path / "out", ["svg"])[0]).splitlines()
        assert words.count("ER") == 1
        assert any("memory 20" in word for word in words) and any("memory 100" in word for word in words)


def test_the_frame_of_no_runs_forgets_nothing():
    assert isinstance(forgetting(frame([])), pd.DataFrame) and forgetting(frame([])).empty
