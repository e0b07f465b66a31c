"""Recorded predictions: the images that a scenario's runs all have, their label maps, and where the runs disagree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from reports.conventions import require_one_convention
from reports.files import RecordError, one_line
from reports.palettes import VOID
from reports.panels import rows_of
from reports.records import Run, runs_on
from reports.spec import Spec, known_after
from reports.style import display_name
from reports.tables import frame

Labels = npt.NDArray[np.uint8]
_NAMED = 5


@dataclass(frozen=True)
class Shown:
    """A scenario's runs with predictions, one per row of the tables by its name, and the images they all have."""

    scenario: str
    runs: dict[str, Run]
    ids: list[str]

    @property
    def spec(self) -> Spec:
        """That of its first run, whose classes and steps are those of all."""
        return next(iter(self.runs.values())).spec

    @property
    def known(self) -> list[int]:
        """The number of labels after each step, background included."""
        return known_after(self.spec)

    @property
    def unknown(self) -> int:
        """What pixels of classes that are not learned count as: the background, or void."""
        return VOID if self.spec["conventions"].get("future_classes") == "ignore" else 0

    @property
    def last(self) -> int:
        """The last step."""
        return len(self.spec["steps"]) - 1


def shown_of(scenario: str, runs: Sequence[Run]) -> Shown | None:
    """Return the scenario's runs that can be drawn; None if there is none or if they share no image.

    Raises RecordError if they differ in their conventions.
    """
    own = runs_on(scenario, runs)
    require_one_convention(own)
    by_path = {str(run.path): run for run in own}
    chosen: dict[str, Run] = {}
    for key, row in rows_of(frame(own)).items():
        seeds = [by_path[path] for path in dict.fromkeys(row.sort_values("seed")["run"])]
        with_pictures = [run for run in seeds if _ids(run)]
        if with_pictures:
            chosen[display_name(*key)] = with_pictures[0]
    shared = set.intersection(*map(_ids, chosen.values())) if chosen else set()
    return Shown(scenario, chosen, sorted(shared)) if shared else None


def _ids(run: Run) -> set[str]:
    """The images of which a run has the truth and the prediction after the last step."""
    kinds = ("images", "truth", f"step-{len(run.spec['steps']) - 1}")
    return set.intersection(
        *({path.stem for path in (run.path / "predictions" / kind).glob("[!.]*.png")} for kind in kinds)
    )


def require_known(ids: Iterable[str], found: Sequence[Shown]) -> None:
    """Raise RecordError for an id that no scenario has."""
    available = list(dict.fromkeys(name for shown in found for name in shown.ids))
    for name in ids:
        if name not in available:
            rest = f" and {len(available) - _NAMED} more" if len(available) > _NAMED else ""
            raise RecordError(f"pictures: no image {name!r}; there are {', '.join(available[:_NAMED])}{rest}")


# ---------------------------------------------------------------- pictures


def _pixels(path: Path, modes: Sequence[str]) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            if image.mode not in modes:
                raise RecordError(f"{path}: a picture of mode {image.mode}, it must be {' or '.join(modes)}")
            return np.asarray(image)
    except FileNotFoundError:
        raise RecordError(f"{path}: missing") from None
    except RecordError:
        raise
    except Exception as error:  # decoders raise nearly anything
        raise RecordError(f"{path}: cannot be read ({one_line(error)})") from None


def image_of(shown: Shown, name: str) -> npt.NDArray[np.uint8]:
    """Return an image, RGB (H, W, 3); RecordError if it is damaged."""
    run = next(iter(shown.runs.values()))
    return _pixels(run.path / "predictions" / "images" / f"{name}.png", ("RGB",))


def recorded_images(run: Path) -> list[npt.NDArray[np.uint8]]:
    """Return the images of which a run records predictions, RGB (H, W, 3), by id; RecordError if one is damaged."""
    return [_pixels(path, ("RGB",)) for path in sorted((run / "predictions" / "images").glob("[!.]*.png"))]


def truth_of(shown: Shown, name: str) -> Labels:
    """Return the truth of an image, (H, W) in learning order; RecordError if it is damaged.

    Pixels of classes that no step learns, whose label in the record is the one after the last class's, are `unknown`.
    """
    known = shown.known[-1]
    labels = _labels(next(iter(shown.runs.values())), "truth", name, known + 1, None)
    return np.where(labels == known, np.uint8(shown.unknown), labels)


def prediction_of(shown: Shown, run: Run, step: int, name: str, size: tuple[int, ...]) -> Labels:
    """Return what a run predicts after a step, (H, W) in learning order.

    Raises RecordError if it is damaged, or not of the truth's `size`.
    """
    return _labels(run, f"step-{step}", name, shown.known[step], size)


def _labels(run: Run, kind: str, name: str, known: int, size: tuple[int, ...] | None) -> Labels:
    path = run.path / "predictions" / kind / f"{name}.png"
    labels = _pixels(path, ("L", "P"))
    if size is not None and labels.shape != size:
        raise RecordError(f"{path}: {labels.shape[1]} x {labels.shape[0]} pixels, the truth has {size[1]} x {size[0]}")
    if ((labels >= known) & (labels != VOID)).any():
        raise RecordError(f"{path}: a label of {labels[labels != VOID].max()}, allowed are 0-{known - 1} and {VOID}")
    return labels


# ---------------------------------------------------------------- the choice of images


def most_disputed(shown: Shown) -> list[str]:
    """Return the images, those first on which the last predictions disagree most, equal ones by id."""
    return sorted(shown.ids, key=lambda name: (-_disagreement(shown, name), name))


def _disagreement(shown: Shown, name: str) -> float:
    """The mean over pairs of methods of the share of non-void pixels whose last labels differ; 0 for one method."""
    truth = truth_of(shown, name)
    valid = truth != VOID
    last = [prediction_of(shown, run, shown.last, name, truth.shape)[valid] for run in shown.runs.values()]
    shares = [float((one != other).mean()) for one, other in combinations(last, 2) if valid.any()]
    return float(sum(shares) / len(shares)) if shares else 0.0
