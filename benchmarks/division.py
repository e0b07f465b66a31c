"""Which images a step gets: the setups as functions of the class-presence matrix (METHODS 'Scenarios').

`presence` is bool (images, K + 1): column c tells whether the image has a pixel of class c. `groups[t]` are the
classes that step t adds. Every function returns, per step, places in the list, in the list's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice, pairwise

import numpy as np

Groups = Sequence[Sequence[int]]
Places = list[np.ndarray]

WEIGHT = 120.0
"""Of how far a class is from its full number of images, in the dense rule's score."""
_CHUNK = 100_000
"""Images whose classes the dense rule lists at a time."""

JOINED: dict[tuple[int, ...], tuple[tuple[int, ...], ...]] = {(100, 50): ((100,), (10, 10, 10, 10, 10))}
"""Numbers of classes a step, and those in which the dense rule divides each step.

Published 100-50 is 100-10 with its five increments joined, in MiB's other class order too (METHODS 'Scenarios').
"""


def overlapped(presence: np.ndarray, groups: Groups) -> Places:
    """Every image with a pixel of the step's classes (Cermelli et al., CVPR 2020)."""
    return [np.flatnonzero(column) for column in _shown(presence, groups).T]


def disjoint(presence: np.ndarray, groups: Groups) -> Places:
    """... and with none of a class of a later step: no two steps share an image (Cermelli et al., CVPR 2020)."""
    shown = _shown(presence, groups)
    last = shown.shape[1] - 1 - shown[:, ::-1].argmax(axis=1)
    return [np.flatnonzero((last == t) & shown[:, t]) for t in range(len(groups))]


def dense_disjoint(presence: np.ndarray, groups: Groups) -> Places:
    """Every image with any class in exactly one step, shared out greedily (METHODS 'Scenarios', ADE20K).

    All steps are divided in one go; of the sizes in `JOINED` the parts are divided, and joined to steps.
    """
    increments = dense_increments(groups)
    cut = [part for group, sizes in zip(groups, increments, strict=True) for part in _cut(group, sizes)]
    parts = iter(_greedy(presence, cut))
    return [np.sort(np.concatenate(list(islice(parts, len(sizes))))) for sizes in increments]


def dense_increments(groups: Groups) -> tuple[tuple[int, ...], ...]:
    """Return for each step the numbers of classes that the dense rule divides it in: one, but for `JOINED`."""
    sizes = tuple(map(len, groups))
    return JOINED.get(sizes, tuple((size,) for size in sizes))


def _cut(group: Sequence[int], sizes: Sequence[int]) -> list[Sequence[int]]:
    return [group[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]


def _greedy(presence: np.ndarray, groups: Groups) -> Places:
    """Visit the images by (smallest class, place); each goes to the step of its best class (ties: smaller class)."""
    step_of = np.full(presence.shape[1], -1)
    for t, group in enumerate(groups):
        step_of[list(group)] = t
    known = np.flatnonzero(step_of >= 0)
    shown = presence[:, known]
    images_of, steps = shown.sum(axis=0).tolist(), step_of[known].tolist()
    given = [0] * len(known)
    assigned = np.full(len(presence), -1)
    visited = np.flatnonzero(shown.any(axis=1))
    visited = visited[np.argsort(shown[visited].argmax(axis=1), kind="stable")]
    for start in range(0, len(visited), _CHUNK):
        images = visited[start : start + _CHUNK]
        assigned[images] = [_best_step(row, images_of, given, steps) for row in _rows(shown[images])]
    return [np.flatnonzero(assigned == t) for t in range(len(groups))]


def _rows(shown: np.ndarray) -> Iterator[list[int]]:
    """Yield the columns that are True in each row; every row has one."""
    rows, columns = np.nonzero(shown)
    ends = np.flatnonzero(np.diff(rows, append=len(shown))) + 1
    each = columns.tolist()
    for start, end in pairwise([0, *ends.tolist()]):
        yield each[start:end]


def _best_step(classes: list[int], images_of: list[int], given: list[int], steps: list[int]) -> int:
    """Return the step of the best of an image's classes, and count the image for those of them that the step adds.

    It is called for each image of a data set: arrays of so few numbers would take ten times as long.
    """
    total = sum(images_of[c] for c in classes)
    scores = [WEIGHT * (1 - given[c] / images_of[c]) + total / images_of[c] for c in classes]
    step = steps[classes[scores.index(max(scores))]]
    for c in classes:
        if steps[c] == step:
            given[c] += 1
    return step


RULES: dict[str, Callable[[np.ndarray, Groups], Places]] = {"voc": disjoint, "ade": dense_disjoint}
"""How the disjoint setup divides the images, by the data set whose rule it is."""


def division_text(rule: str, groups: Groups) -> str:
    """Return how a rule divides disjoint steps: its name, and the parts that it joins where `JOINED` tells so."""
    parts = [size for sizes in dense_increments(groups) for size in sizes]
    joined = rule == "ade" and len(parts) > len(groups)
    return f"{rule}, as {'+'.join(map(str, parts))} with increments joined" if joined else rule


def tested_images(presence: np.ndarray, groups: Groups) -> Places:
    """Every image that has a pixel of a class known by the step."""
    return [np.flatnonzero(seen) for seen in np.logical_or.accumulate(_shown(presence, groups), axis=1).T]


def _shown(presence: np.ndarray, groups: Groups) -> np.ndarray:
    """Return bool (images, steps): whether the image has a pixel of the step's classes."""
    return np.stack([presence[:, list(group)].any(axis=1) for group in groups], axis=1)
