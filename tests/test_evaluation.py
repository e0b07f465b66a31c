"""The pixels of an evaluation: rows the truth, future classes and void too, columns the prediction."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor
from toy import TEST, benchmark, make

from bench.launch.session import run
from bench.plan.request import Request
from benchmarks.streams import FutureClasses, Tested, load_benchmark
from reports.contours import boundary_iou, contour_pixels
from reports.counts import StepCounts, folded
from reports.measures import measured
from reports.metrics import class_iou
from strategies.finetune import Finetune
from strategies.learning.evaluation import PixelMeter, best_classes, pixel_counts

VOID = 255
CONVENTIONS: list[tuple[FutureClasses, Tested]] = list(product(("background", "ignore"), ("known", "all")))


def test_rows_are_the_truth_and_columns_the_prediction() -> None:
    truth = torch.tensor([[[0, 0, 1], [1, 1, 2]], [[2, VOID, 0], [1, VOID, 2]]])  # 3 is nowhere, 4 is unlearned
    prediction = torch.tensor([[[0, 1, 1], [0, 0, 2]], [[2, 1, 0], [2, 0, 0]]])
    counts = pixel_counts(prediction, truth, classes=4, outputs=3).sum((0, 1))
    assert counts.dtype == torch.int64
    assert counts.tolist() == [[2, 1, 0], [2, 1, 1], [1, 0, 2], [0, 0, 0], [0, 0, 0], [1, 1, 0]]


def test_of_equal_scores_the_first_class_counts() -> None:
    """As numpy's argmax has it."""
    scores = np.random.default_rng(0).integers(0, 3, (2, 5, 40, 30)).astype(np.float32)
    assert best_classes(torch.from_numpy(scores)).tolist() == scores.argmax(1).tolist()


class SeesTheFirstClass(Finetune):
    """Predicts label 1 wherever it looks."""

    def predict(self, strategy: Any) -> Tensor:
        scores = torch.zeros(len(strategy.mb_x), strategy.network.outputs, *strategy.mb_x.shape[2:])
        scores[:, 1] = 1.0
        return scores


def test_an_evaluation_counts_every_image_of_its_stream_once_and_begins_anew() -> None:
    meter = PixelMeter()
    template = make(SeesTheFirstClass, [meter], settings=["evaluation.batch_size=2"])
    template.eval(benchmark().test_stream[0])
    first = meter.counts["test"].sum((0, 1))
    template.eval(benchmark().test_stream[0])
    assert first.dtype == np.int64
    np.testing.assert_array_equal(meter.counts["test"].sum((0, 1)), first)
    # Of step 0 are the classes 3, 1, 5. An image is 16 x 16; a class in it is 5 x 5 pixels within 24 of void.
    shown = [[c for c in (3, 1, 5) if c in classes] for classes in TEST if {3, 1, 5} & set(classes)]
    squares = [sum(c in classes for classes in shown) for c in (3, 1, 5)]
    drawn = sum(len(classes) for classes in TEST if {3, 1, 5} & set(classes))
    background = 16 * 16 * len(shown) - 49 * drawn + 25 * (drawn - sum(squares))
    counted = (background, *(25 * n for n in squares), 0, 0, 0, 0, (49 - 25) * drawn)  # void last
    assert first.tolist() == [[0, n, 0, 0] for n in counted]


@pytest.fixture(scope="module")
def finished(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that keeps its predictions of all 40 test images."""
    assignments = ("data.size=24", "base.epochs=2", "base.batch_size=8", "evaluation.pictures=40")
    out = tmp_path_factory.mktemp("out")
    request = Request(
        "finetune", "voc-15-5-disjoint", data_root, preset="small", assignments=assignments, out=out, jobs=1
    )
    result = run(request, Console(quiet=True))
    return result.runs[0]


def test_a_runs_matrices_have_the_data_sets_labels_as_rows_and_the_kept_predictions_as_columns(
    finished: Any, data_root: Path
) -> None:
    data = load_benchmark("voc-15-5-disjoint", data_root, size=24).test_stream[1].data
    matrix = np.zeros((21, 21), dtype=int)
    for i, name in enumerate(data.ids):
        truth = data[i][1].numpy()
        predicted = np.array(Image.open(finished.path / "predictions" / "step-1" / f"{name}.png"))
        for pair in zip(truth[truth != VOID].tolist(), predicted[truth != VOID].tolist(), strict=True):
            matrix[pair] += 1
    assert (matrix != matrix.T).any()
    written = np.loadtxt(finished.path / "confusion" / "step-1.csv", delimiter=",", skiprows=1, dtype=int)
    np.testing.assert_array_equal(written, matrix)
    hits = matrix.diagonal()
    there = matrix.sum(0) + matrix.sum(1) > 0
    by_hand = hits[there] / (matrix.sum(0) + matrix.sum(1) - hits)[there]
    np.testing.assert_allclose(class_iou(finished.confusions[-1])[there], by_hand)
    assert finished.steps[-1]["miou"] == pytest.approx(100 * by_hand.mean(), abs=1e-4)


def test_a_runs_counts_have_every_class_and_void_as_rows_over_all_test_images(finished: Any, data_root: Path) -> None:
    every = load_benchmark("voc-15-5-disjoint", data_root, size=24, future_classes="kept", tested="all")
    known = load_benchmark("voc-15-5-disjoint", data_root, size=24, future_classes="ignore")
    for t, outputs in ((0, 16), (1, 21)):
        data, by_images = every.test_stream[t].data, {True: np.zeros((256, 21), int), False: np.zeros((256, 21), int)}
        for i, name in enumerate(data.ids):
            predicted = np.array(Image.open(finished.path / "predictions" / f"step-{t}" / f"{name}.png"))
            for pair in zip(data[i][1].flatten().tolist(), predicted.flatten().tolist(), strict=True):
                by_images[name in known.test_stream[t].data.ids][pair] += 1
        rows = [*range(22), VOID]
        np.testing.assert_array_equal(finished.counts[t].known, by_images[True][rows, :outputs])
        np.testing.assert_array_equal(finished.counts[t].others, by_images[False][rows, :outputs])
        assert by_images[False].any() == (t == 0) and by_images[True][VOID].any()


def test_a_streams_own_convention_and_one_read_from_the_counts_give_the_same_matrix(
    finished: Any, data_root: Path
) -> None:
    for future, tested in CONVENTIONS:
        streams = load_benchmark("voc-15-5-disjoint", data_root, size=24, future_classes=future, tested=tested)
        data, matrix = streams.test_stream[0].data, np.zeros((16, 16), int)
        for i, name in enumerate(data.ids):
            truth = data[i][1].numpy()
            predicted = np.array(Image.open(finished.path / "predictions" / "step-0" / f"{name}.png"))
            np.add.at(matrix, (truth[truth != VOID], predicted[truth != VOID]), 1)
        np.testing.assert_array_equal(folded(finished.counts[0], future, tested), matrix)
    np.testing.assert_array_equal(finished.confusions[0], folded(finished.counts[0], "background", "known"))


def test_classes_that_no_step_learns_count_as_future_ones_do(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "steps.txt").write_text("aeroplane, person, cat\nbird\ndog, chair\n", encoding="utf-8")
    name = f"voc-overlapped:steps={tmp_path / 'steps.txt'}"

    def predicted(image_id: str, shape: tuple[int, ...], outputs: int) -> np.ndarray:
        return np.random.default_rng([*image_id.encode()]).integers(0, outputs, shape)

    kept = load_benchmark(name, data_root, size=24, future_classes="kept")
    for t, outputs in enumerate((4, 5, 7)):
        parts = []
        for stream in (kept.test_stream, kept.streams["test_rest"]):
            data, counts = stream[t].data, np.zeros((9, outputs), int)
            for i, image_id in enumerate(data.ids):
                truth = data[i][1]
                found = torch.from_numpy(predicted(image_id, tuple(truth.shape), outputs))
                counts += pixel_counts(found[None], truth[None], 7, outputs).sum((0, 1)).numpy()
            assert counts[7].any()
            parts.append(counts)
        for future, tested in CONVENTIONS:
            streams = load_benchmark(name, data_root, size=24, future_classes=future, tested=tested)
            data, matrix = streams.test_stream[t].data, np.zeros((outputs, outputs), int)
            for i, image_id in enumerate(data.ids):
                truth = data[i][1].numpy()
                counted = truth != VOID
                np.add.at(matrix, (truth[counted], predicted(image_id, truth.shape, outputs)[counted]), 1)
            np.testing.assert_array_equal(folded(StepCounts(*parts), future, tested), matrix)


def test_a_runs_contours_are_those_of_its_kept_predictions(finished: Any, data_root: Path) -> None:
    every = load_benchmark("voc-15-5-disjoint", data_root, size=24, future_classes="kept", tested="all")
    data, found = every.test_stream[1].data, []
    for i, name in enumerate(data.ids):
        predicted = torch.from_numpy(np.array(Image.open(finished.path / "predictions" / "step-1" / f"{name}.png")))
        found.append(pixel_counts(predicted.long()[None], data[i][1][None], 21, 21).numpy())
    [contours] = [each for each in finished.contours[1:] if each is not None]
    np.testing.assert_array_equal(contours.known + contours.others, contour_pixels(np.sum(found, axis=0)))
    conventions = finished.spec["conventions"]
    shown = measured([finished])["boundary_iou"].iloc[1]
    assert 0 < shown == pytest.approx(100 * np.nanmean(boundary_iou(contours, conventions)))
