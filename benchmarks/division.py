"""Which images a step gets: the setups as functions of the class-presence matrix (METHODS 'Scenarios').

`presence` is bool (images, K + 1): column c tells whether the image has a pixel of class c. `groups[t]` are the
classes that step t adds. Every function returns, per step, places in the list, in the list's order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Groups = Sequence[Sequence[int]]
Places = list[np.ndarray]

WEIGHT = 120.0
"""Of how far a class is from its full number of images, in the dense rule's score."""


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

    A base step larger than the next one is divided off first, and the rest among the increments over their
    classes alone: so a base step depends on its classes, not on the increments. Steps of equal size are divided
    in one go.
    """
    if len(groups) == 2 or len(groups[0]) <= len(groups[1]):
        return _greedy(presence, groups)
    later = [c for group in groups[1:] for c in group]
    base, rest = _greedy(presence, [groups[0], later])
    return [base, *(rest[places] for places in dense_disjoint(presence[rest], groups[1:]))]


def _greedy(presence: np.ndarray, groups: Groups) -> Places:
    """Visit the images by (smallest class, place); each goes to the step of its best class (ties: smaller class)."""
    step_of = np.full(presence.shape[1], -1)
    for t, group in enumerate(groups):
        step_of[list(group)] = t
    known = np.flatnonzero(step_of >= 0)
    shown = presence[:, known]
    images_of = shown.sum(axis=0).astype(float)
    given = np.zeros(len(known))
    assigned = np.full(len(presence), -1)
    visited = np.flatnonzero(shown.any(axis=1))
    for image in visited[np.argsort(shown[visited].argmax(axis=1), kind="stable")]:
        classes = np.flatnonzero(shown[image])
        counts = images_of[classes]
        scores = WEIGHT * (1 - given[classes] / counts) + counts.sum() / counts
        assigned[image] = step = step_of[known[classes[scores.argmax()]]]
        given[classes[step_of[known[classes]] == step]] += 1
    return [np.flatnonzero(assigned == t) for t in range(len(groups))]


RULES: dict[str, Callable[[np.ndarray, Groups], Places]] = {"voc": disjoint, "ade": dense_disjoint}
"""How the disjoint setup divides the images, by the data set whose rule it is."""


def tested_images(presence: np.ndarray, groups: Groups) -> Places:
    """Every image that has a pixel of a class known by the step."""
    return [np.flatnonzero(seen) for seen in np.logical_or.accumulate(_shown(presence, groups), axis=1).T]


def _shown(presence: np.ndarray, groups: Groups) -> np.ndarray:
    """Return bool (images, steps): whether the image has a pixel of the step's classes."""
    return np.stack([presence[:, list(group)].any(axis=1) for group in groups], axis=1)
