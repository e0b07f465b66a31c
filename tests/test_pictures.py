"""Figure 4: which images are drawn, in which colours, what the truth is at a step, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import reports.style
from reports.files import RecordError
from reports.palettes import VOID, ade_palette, in_learning_order, palette_of, voc_palette
from reports.pictures import write_pictures
from reports.predictions import shown_of, truth_of
from reports.records import find_runs
from reports.run_writer import RunWriter
from reports.spec import SCHEMA

SCENARIO = "voc-2-1-disjoint"
CLASSES = [[5, 3], [1]]
"""The data set's own ids by step: label 1 is bottle (5), label 2 bird (3), label 3 aeroplane (1)."""
BOTTLE, BIRD, AEROPLANE = (128, 0, 128), (128, 128, 0), (128, 0, 0)
TRUTH = np.array([[0, 1, 2], [3, 3, VOID]], dtype=np.uint8)


def write_run(
    out: Path,
    strategy: str = "er",
    last: dict[str, np.ndarray] | None = None,
    truth: np.ndarray = TRUTH,
    pictures: bool = True,
    **changes: Any,
) -> Path:
    """A run of two steps; `last` are its last predictions by image id (the truth without void by default)."""
    spec: dict[str, Any] = {
        "schema": SCHEMA,
        "scenario": SCENARIO,
        "strategy": strategy,
        "seed": 0,
        "hash": "a1",
        "method": {"name": strategy, "parameters": {}},
        "config": {"memory": {"size": 100}},
        "conventions": {"future_classes": "background", "background_in_mean": True},
        "class_names": ["background", "bottle", "bird", "aeroplane"],
        "steps": [{"step": step, "classes": classes} for step, classes in enumerate(CLASSES)],
        **changes,
    }
    path = out / spec["scenario"] / strategy / f"{spec['hash']}-seed{spec['seed']}"
    writer = RunWriter(path)
    writer.start(spec)
    writer.add_step(np.eye(3, dtype=int), {})
    writer.add_step(np.eye(4, dtype=int), {})
    writer.finish()
    if pictures:
        filled = np.where(truth == VOID, 0, truth).astype(np.uint8)
        last = last or {"one": filled}
        writer.add_pictures("images", {name: np.full((*truth.shape, 3), 7, dtype=np.uint8) for name in last})
        writer.add_pictures("truth", dict.fromkeys(last, truth))
        writer.add_pictures("step-0", {name: np.where(filled > 2, 0, filled).astype(np.uint8) for name in last})
        writer.add_pictures("step-1", last)
    return path


def drawn(out: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Figure:
    """The one figure of the runs below `out`."""
    figures: list[Figure] = []
    original = reports.style.write_figure
    monkeypatch.setattr("reports.pictures.write_figure", lambda f, *rest: figures.append(f) or original(f, *rest))
    write_pictures(find_runs(out), out / "out", formats=["svg"], **options)
    (figure,) = figures
    return figure


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


# ---------------------------------------------------------------- palettes


def test_voc_has_the_colours_of_its_devkit():
    expected = {1: (128, 0, 0), 2: (0, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    palette = voc_palette()
    assert {label: tuple(palette[label].tolist()) for label in expected} == expected
    assert tuple(palette[VOID].tolist()) == (224, 224, 192) and len(np.unique(palette, axis=0)) == 256


def test_voc_s_own_label_maps_carry_the_same_colours(voc_data):
    """The data set's masks are paletted images: what they name is what is drawn."""
    folder = voc_data / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    with Image.open(next(folder.glob("*.png"))) as image:
        if image.mode != "P":
            pytest.skip(f"the label maps below {folder} have no palette")
        own = np.array(image.getpalette()).reshape(-1, 3)
    np.testing.assert_array_equal(voc_palette()[: len(own)], own)


def test_ade_has_its_published_colours():
    palette = ade_palette()
    # Wall, building, sky; glass, clock, flag. The publication itself paints two alike: road and skyscraper.
    known = {1: (120, 120, 120), 2: (180, 120, 120), 3: (6, 230, 230), 148: (25, 194, 194), 149: (102, 255, 0)}
    assert {label: tuple(palette[label].tolist()) for label in known} == known
    assert tuple(palette[150].tolist()) == (92, 0, 255) and tuple(palette[0].tolist()) == (0, 0, 0)
    assert len(np.unique(palette[1:151], axis=0)) == 149 and (palette[7] == palette[49]).all()


def test_a_data_set_s_palette_goes_by_its_own_ids_not_by_the_order_of_learning():
    colours = in_learning_order(voc_palette(), [5, 3, 1])
    assert [tuple(colour) for colour in colours[:4].tolist()] == [(0, 0, 0), BOTTLE, BIRD, AEROPLANE]
    assert tuple(colours[VOID].tolist()) == (224, 224, 192)


def test_only_ade_has_a_palette_of_its_own():
    assert (palette_of("ade") == ade_palette()).all()
    assert all((palette_of(name) == voc_palette()).all() for name in ("voc", "shapes", "scenes", "folder"))


# ---------------------------------------------------------------- what is drawn


def test_the_figure_has_the_image_the_truth_by_step_and_every_method_s_predictions(tmp_path, monkeypatch):
    write_run(tmp_path, "ours")
    write_run(tmp_path, "er", {"one": np.ones((2, 3), dtype=np.uint8)})
    figure = drawn(tmp_path, monkeypatch)
    pixels = [np.asarray(image.get_array()) for image in figure.axes[0].images]
    assert len(pixels) == 1 + 2 + 2 + 2
    image, truth_0, truth_1, _, er_1, _, ours_1 = pixels
    assert (image == 7).all()
    # At step 0 the aeroplane is not known: background. Void stays void.
    assert [tuple(colour) for colour in truth_0.reshape(-1, 3).tolist()] == [
        *((0, 0, 0), BOTTLE, BIRD),
        *((0, 0, 0), (0, 0, 0), (224, 224, 192)),
    ]
    assert tuple(truth_1[1, 0].tolist()) == AEROPLANE
    assert (er_1 == BOTTLE).all() and tuple(ours_1[1, 0].tolist()) == AEROPLANE
    assert {"one", "truth, step 0", "step 1", "ER", "Ours", "bottle", "bird", "aeroplane", "void"} <= set(words(figure))


def test_classes_that_do_not_occur_are_not_in_the_legend(tmp_path, monkeypatch):
    write_run(tmp_path, truth=np.array([[0, 2]], dtype=np.uint8))
    shown = set(words(drawn(tmp_path, monkeypatch)))
    assert {"background", "bird"} <= shown and not {"bottle", "aeroplane", "void"} & shown


def test_by_the_convention_that_ignores_them_future_classes_are_void(tmp_path, monkeypatch):
    write_run(tmp_path, conventions={"future_classes": "ignore"})
    truth_0 = np.asarray(drawn(tmp_path, monkeypatch).axes[0].images[1].get_array())
    assert tuple(truth_0[1, 0].tolist()) == (224, 224, 192)


def maps(**labels: list[list[int]]) -> dict[str, np.ndarray]:
    return {name: np.array(each, dtype=np.uint8) for name, each in labels.items()}


@pytest.mark.parametrize(("convention", "shown"), [("background", 0), ("ignore", VOID)])
def test_classes_that_no_step_learns_are_what_they_count_as(tmp_path, convention, shown):
    """A scenario may leave classes of its data set out; in the record they have the label after the last class's."""
    truth = np.array([[0, 1, 2], [4, 4, VOID]], dtype=np.uint8)
    last = {"one": np.zeros((2, 3), dtype=np.uint8)}
    write_run(tmp_path, truth=truth, last=last, conventions={"future_classes": convention})
    found = shown_of(SCENARIO, find_runs(tmp_path))
    assert truth_of(found, "one").tolist() == [[0, 1, 2], [shown, shown, VOID]]
    assert write_pictures(find_runs(tmp_path), tmp_path / "out", formats=["svg"])


def test_the_images_are_those_the_methods_disagree_on_most(tmp_path, monkeypatch):
    """Void does not count: on `a` they differ at the void pixel alone, on `b` at one pixel, on `c` at two, `d` as b."""
    same = [[0, 1, 2], [3, 3, 0]]
    write_run(tmp_path, "er", maps(a=same, b=same, c=same, d=same))
    other = maps(a=[[0, 1, 2], [3, 3, 3]], b=[[0, 1, 2], [3, 0, 0]], c=[[0, 1, 1], [3, 0, 0]], d=[[0, 1, 1], [3, 3, 0]])
    write_run(tmp_path, "ours", other)
    figure = drawn(tmp_path, monkeypatch, count=3)
    assert [word for word in words(figure) if word in "abcd"] == ["c", "b", "d"]


def test_disagreement_is_the_mean_over_pairs_of_methods(tmp_path, monkeypatch):
    """On `a` one method is apart by 4 of 5 pixels, the pairs by 0, 4 and 4; on `b` every pair by 3: more on average."""
    same = [[0, 1, 2], [3, 3, 0]]
    write_run(tmp_path, "er", maps(a=same, b=[[1, 1, 2], [3, 3, 0]]))
    write_run(tmp_path, "mib", maps(a=same, b=[[0, 2, 1], [3, 3, 0]]))
    write_run(tmp_path, "ours", maps(a=[[1, 2, 1], [0, 3, 0]], b=[[2, 1, 1], [0, 3, 0]]))
    assert "b" in words(drawn(tmp_path, monkeypatch, count=1))


def test_images_are_drawn_by_id_in_the_order_asked_for(tmp_path, monkeypatch):
    same = [[0, 1, 2], [3, 3, 0]]
    write_run(tmp_path, last=maps(a=same, b=same, c=same))
    figure = drawn(tmp_path, monkeypatch, ids=["c", "a"])
    assert [word for word in words(figure) if word in "abc"] == ["c", "a"]


def test_a_step_without_a_prediction_is_blank_and_the_lowest_seed_with_pictures_is_shown(tmp_path, monkeypatch):
    write_run(tmp_path, seed=0, pictures=False)
    write_run(tmp_path, seed=4)
    path = write_run(tmp_path, seed=2)
    (path / "predictions" / "step-0" / "one.png").unlink()
    figure = drawn(tmp_path, monkeypatch)
    assert len(figure.axes[0].images) == 1 + 2 + 1
    assert f"{SCENARIO}, seed 2" in words(figure)


def test_embedded_data_sets_are_labelled(tmp_path, monkeypatch):
    write_run(tmp_path, scenario="shapes-2-1-disjoint")
    assert "embedded data set shapes, not VOC/ADE results" in "\n".join(words(drawn(tmp_path, monkeypatch)))


def test_equal_runs_give_equal_files(tmp_path):
    for strategy in ("er", "ours"):
        write_run(tmp_path / "runs", strategy)
    runs = find_runs(tmp_path / "runs")
    formats = ("png", "pdf", "svg")
    first = [path.read_bytes() for path in write_pictures(runs, tmp_path / "a", formats=formats)]
    second = write_pictures(runs[::-1], tmp_path / "b", formats=formats)
    assert [path.name for path in second] == [f"{SCENARIO}-pictures.{name}" for name in formats]
    assert [path.read_bytes() for path in second] == first


# ---------------------------------------------------------------- what is refused


def refusal(out: Path, **options: Any) -> str:
    with pytest.raises(RecordError) as error:
        write_pictures(find_runs(out), out / "out", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_runs_without_predictions_cannot_be_drawn(tmp_path):
    write_run(tmp_path, pictures=False)
    assert refusal(tmp_path) == "pictures: none of 1 finished runs holds predictions that can be drawn"


def test_a_scenario_without_predictions_does_not_keep_the_others_from_being_drawn(tmp_path):
    write_run(tmp_path, pictures=False)
    write_run(tmp_path, scenario="voc-2-1-overlapped")
    paths = write_pictures(find_runs(tmp_path), tmp_path / "out", formats=["svg"])
    assert [path.name for path in paths] == ["voc-2-1-overlapped-pictures.svg"]


def test_an_unknown_id_is_named_with_those_there_are(tmp_path):
    write_run(tmp_path)
    assert refusal(tmp_path, ids=["two"]) == "pictures: no image 'two'; there are one"


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("step-1", np.full((2, 3), 4, dtype=np.uint8), r"step-1/one\.png: a label of 4, allowed are 0-3 and 255"),
        ("step-0", np.full((2, 3), 3, dtype=np.uint8), r"step-0/one\.png: a label of 3, allowed are 0-2 and 255"),
        ("step-1", np.zeros((3, 3), dtype=np.uint8), r"step-1/one\.png: 3 x 3 pixels, the truth has 3 x 2"),
        ("truth", np.zeros((2, 3, 3), dtype=np.uint8), r"truth/one\.png: a picture of mode RGB, it must be L or P"),
        ("images", np.zeros((2, 3), dtype=np.uint8), r"images/one\.png: a picture of mode L, it must be RGB"),
        ("images", b"\x89PNG\r\n\x1a\n", r"images/one\.png: cannot be read \("),
        ("step-1", b"", r"step-1/one\.png: cannot be read \("),
    ],
)
def test_a_damaged_picture_is_named(tmp_path, kind, content, message):
    path = write_run(tmp_path) / "predictions" / kind / "one.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        Image.fromarray(content).save(path)
    assert re.search(message, refusal(tmp_path))


def test_other_conventions_formats_and_counts_are_refused(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, "ours", conventions={"future_classes": "ignore"})
    assert "convention" in refusal(tmp_path)
    with pytest.raises(ValueError, match="'gif': allowed are png, pdf, svg"):
        write_pictures([], tmp_path, formats=["gif"])
    with pytest.raises(ValueError, match="count 0: allowed are numbers from 1"):
        write_pictures([], tmp_path, count=0)
