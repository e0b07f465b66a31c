"""Slow reference implementations of the methods' mathematics, to test the fast ones against.

Derived from METHODS.md and the MM'21 paper ("Eq. n" and "Algorithm n" are the paper's) and, for MiB, from
Cermelli et al., CVPR 2020.  Plain float64 numpy, one Python loop per image and pixel, and nothing shared
with the package.

Common arguments
    logits: float64 (N, C, H, W) with C = 1 + |Y_t|; channel 0 is the background, channel c is class c.
    labels: int (N, H, W): 0 background or unlabelled, 1.. classes, 255 void.
    tau: int (N,): the step each image was annotated at; its labels hold classes of C_tau alone.
    classes_of_step: C_0, ..., C_t as lists of channel ids; together they are 1..C-1.

Every mean is taken over the pixels of the whole batch at once, not over images first; it is undefined, and a
ValueError here, for a batch of nothing but void.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

VOID = 255
NO_LABEL = -1

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Pixel = tuple[int, int, int]


# ---------------------------------------------------------------------------------------------- probabilities


def _pixels(labels: Ints) -> Iterator[tuple[Pixel, int]]:
    """Every pixel (image, row, column) that is not void, and its label."""
    n, h, w = labels.shape
    for i in range(n):
        for y in range(h):
            for x in range(w):
                if int(labels[i, y, x]) != VOID:
                    yield (i, y, x), int(labels[i, y, x])


def _count(labels: Ints) -> int:
    """Number of non-void pixels; ValueError if there is none."""
    count = sum(1 for _ in _pixels(labels))
    if count == 0:
        raise ValueError("the mean over non-void pixels is undefined: every pixel is void")
    return count


def _log_p(logits: Floats, pixel: Pixel) -> list[float]:
    """log p(c | pixel) for every channel c (Eq. 2)."""
    i, y, x = pixel
    scores = [float(logits[i, c, y, x]) for c in range(logits.shape[1])]
    top = max(scores)
    log_norm = top + math.log(sum(math.exp(s - top) for s in scores))
    return [s - log_norm for s in scores]


def _log_sum(log_p: Sequence[float], channels: Sequence[int]) -> float:
    """log of the sum of p over the given channels."""
    top = max(log_p[c] for c in channels)
    return top + math.log(sum(math.exp(log_p[c] - top) for c in channels))


def _outside(tau: int, classes_of_step: Sequence[Sequence[int]]) -> list[int]:
    """(Y_t plus background) minus C_tau: what an unlabelled pixel of an image annotated at tau may be."""
    rest = [c for step, classes in enumerate(classes_of_step) if step != tau for c in classes]
    return [0, *sorted(rest)]


def _check(logits: Floats, labels: Ints, tau: Ints, classes_of_step: Sequence[Sequence[int]]) -> None:
    """The channels are the classes, and an image annotated at tau holds labels of C_tau alone."""
    known = sorted(c for classes in classes_of_step for c in classes)
    if known != list(range(1, logits.shape[1])):
        raise ValueError(f"classes_of_step holds {known}, logits have {logits.shape[1]} channels")
    for pixel, label in _pixels(labels):
        if label != 0 and label not in classes_of_step[int(tau[pixel[0]])]:
            raise ValueError(f"pixel {pixel} is labelled {label}, not a class of its step {tau[pixel[0]]}")


def softmax(logits: Floats) -> Floats:
    """Probabilities (N, C, H, W) over the channels (Eq. 2)."""
    n, channels, h, w = logits.shape
    p = np.zeros((n, channels, h, w), dtype=np.float64)
    for i in range(n):
        for y in range(h):
            for x in range(w):
                for c, log_p in enumerate(_log_p(logits, (i, y, x))):
                    p[i, c, y, x] = math.exp(log_p)
    return p


def cosine_logits(features: Floats, weights: Floats, tau: float) -> Floats:
    """tau cos(u_c, F_ij), (N, C, H, W), of features (N, D, H, W) and weights (C, D), none zero (Eq. 8)."""
    n, depth, h, w = features.shape
    logits = np.zeros((n, len(weights), h, w), dtype=np.float64)
    for i in range(n):
        for y in range(h):
            for x in range(w):
                f = [float(features[i, d, y, x]) for d in range(depth)]
                for c in range(len(weights)):
                    u = [float(weights[c, d]) for d in range(depth)]
                    dot = sum(a * b for a, b in zip(u, f, strict=True))
                    logits[i, c, y, x] = tau * dot / (math.hypot(*u) * math.hypot(*f))
    return logits


# ------------------------------------------------------------------------------------------ dynamic sampling


def confidence(logits: Floats, labels: Ints, c: int) -> float | None:
    """E_mb(c): mean of p(c) over the batch's pixels annotated c, None without such a pixel (Eq. 4)."""
    if c in (0, VOID):
        raise ValueError(f"{c} is not a foreground class")
    values = [math.exp(_log_p(logits, pixel)[c]) for pixel, label in _pixels(labels) if label == c]
    return sum(values) / len(values) if values else None


def ema(E_old: float, E_mb: float | None, mu: float) -> float:
    """E(c) = mu E_old(c) + (1 - mu) E_mb(c); a class absent from the batch keeps E (Eq. 3)."""
    return E_old if E_mb is None else mu * E_old + (1.0 - mu) * E_mb


def sampling_probabilities(E: Mapping[int, float], eta: float, available: set[int]) -> dict[int, float]:
    """P_s(c), proportional to exp(-eta E(c)) over the available classes alone (Eq. 5); {} if none is."""
    weight = {c: math.exp(-eta * E[c]) for c in sorted(available)}
    total = sum(weight.values())
    return {c: value / total for c, value in weight.items()}


# -------------------------------------------------------------------------------------------- E-step, M-step


def relabel(logits: Floats, labels: Ints, tau: Ints, classes_of_step: Sequence[Sequence[int]], delta: float) -> Ints:
    """Pseudo-labels (N, H, W) of the latent pixels R-bar: 0 background, c class c, -1 none (Eq. 6).

    The argmax runs over (Y_t plus background) minus C_tau, the smallest id winning a tie; it is kept where
    its probability under the full softmax is strictly greater than delta. Annotated and void pixels get -1.
    """
    _check(logits, labels, tau, classes_of_step)
    pseudo = np.full(labels.shape, NO_LABEL, dtype=np.int64)
    for pixel, label in _pixels(labels):
        if label != 0:
            continue
        log_p = _log_p(logits, pixel)
        best = 0
        for c in _outside(int(tau[pixel[0]]), classes_of_step):
            if log_p[c] > log_p[best]:
                best = c
        if math.exp(log_p[best]) > delta:
            pseudo[pixel] = best
    return pseudo


def composite_loss(
    logits: Floats,
    labels: Ints,
    tau: Ints,
    classes_of_step: Sequence[Sequence[int]],
    delta: float,
    gamma: float,
) -> float:
    """Composite loss divided by the number of non-void pixels (Eq. 7).

    -log p(y) on annotated and pseudo-labelled pixels, plus gamma times
    -log sum of p over (Y_t plus background) minus C_tau on all of R-bar, pseudo-labelled or not.
    """
    pseudo = relabel(logits, labels, tau, classes_of_step, delta)
    supervised, consistency = 0.0, 0.0
    for pixel, label in _pixels(labels):
        log_p = _log_p(logits, pixel)
        if label != 0:
            supervised -= log_p[label]
            continue
        if pseudo[pixel] != NO_LABEL:
            supervised -= log_p[int(pseudo[pixel])]
        consistency -= _log_sum(log_p, _outside(int(tau[pixel[0]]), classes_of_step))
    return (supervised + gamma * consistency) / _count(labels)


def cross_entropy(logits: Floats, labels: Ints) -> float:
    """Mean over non-void pixels of -log p(label), label 0 being the background."""
    return sum(-_log_p(logits, pixel)[label] for pixel, label in _pixels(labels)) / _count(labels)


# ------------------------------------------------------------------------------------------------------- MiB


def mib_cross_entropy(logits: Floats, labels: Ints, tau: Ints, classes_of_step: Sequence[Sequence[int]]) -> float:
    """MiB's unbiased cross-entropy with one tau per image, mean over non-void pixels (METHODS.md, mib).

    On a pixel labelled 0, p(background) is the sum of p over the background and all classes not in C_tau.
    """
    _check(logits, labels, tau, classes_of_step)
    total = 0.0
    for pixel, label in _pixels(labels):
        log_p = _log_p(logits, pixel)
        total -= log_p[label] if label else _log_sum(log_p, _outside(int(tau[pixel[0]]), classes_of_step))
    return total / _count(labels)


def mib_distillation(logits: Floats, old_logits: Floats, new_classes: Sequence[int], labels: Ints) -> float:
    """MiB's unbiased distillation from old_logits (N, C_old, H, W), mean over non-void pixels (METHODS.md).

    -1/(|Y_{t-1}| + 1) times the sum over background and old classes k of q_old(k) log p'(k), where
    p'(background) = p(background) + sum over C_t of p and p'(k) = p(k) for the old classes.
    Labels serve only to leave out void.
    """
    n_old = old_logits.shape[1]
    if sorted(new_classes) != list(range(n_old, logits.shape[1])):
        raise ValueError(f"new classes must be the channels {n_old}..{logits.shape[1] - 1}: {new_classes}")
    total = 0.0
    for pixel, _ in _pixels(labels):
        log_q, log_p = _log_p(old_logits, pixel), _log_p(logits, pixel)
        total -= math.exp(log_q[0]) * _log_sum(log_p, [0, *new_classes]) / n_old
        for k in range(1, n_old):
            total -= math.exp(log_q[k]) * log_p[k] / n_old
    return total / _count(labels)


def mib_init(weight: Floats, bias: Floats, n_new: int) -> tuple[Floats, Floats]:
    """Classifier grown by n_new outputs: weight (C_old + n_new, D), bias (C_old + n_new,) (METHODS.md).

    The new weights copy the background's; their bias and the background's become b_bkg - log(n_new + 1), so
    that background and new classes share the old probability of the background equally.
    """
    rows = [[float(v) for v in row] for row in weight]
    biases = [float(v) for v in bias]
    shared = biases[0] - math.log(n_new + 1)
    biases[0] = shared
    for _ in range(n_new):
        rows.append(list(rows[0]))
        biases.append(shared)
    return np.array(rows, dtype=np.float64), np.array(biases, dtype=np.float64)


# ------------------------------------------------------------------------------------------------------- mIoU


def confusion(pred: Ints, truth: Ints, n: int, future_classes: Literal["background", "ignore"] = "background") -> Ints:
    """Confusion matrix (n, n), rows truth, columns prediction, over all non-void pixels (Sec. 3.1, 4.1).

    A true class n or above is not known yet: background, or void with future_classes="ignore".
    """
    matrix = np.zeros((n, n), dtype=np.int64)
    for pixel, label in _pixels(truth):
        if label >= n and future_classes == "ignore":
            continue
        matrix[label if label < n else 0, int(pred[pixel])] += 1
    return matrix


def iou(matrix: Ints) -> list[float | None]:
    """IoU of each class; None for a class with neither a true nor a predicted pixel."""
    n = len(matrix)
    result: list[float | None] = []
    for c in range(n):
        hit = int(matrix[c, c])
        union = sum(int(matrix[c, k]) + int(matrix[k, c]) for k in range(n)) - hit
        result.append(hit / union if union else None)
    return result


def miou(matrix: Ints) -> float:
    """Mean IoU as a fraction, background included, absent classes left out."""
    present = [value for value in iou(matrix) if value is not None]
    if not present:
        raise ValueError("mIoU is undefined: the confusion matrix is empty")
    return sum(present) / len(present)


# ------------------------------------------------------------------------------------------------------- CBES


@dataclass(frozen=True)
class CBESReference:
    """One memory state of class-balanced exemplar selection, every random choice enumerated (Algorithm 2).

    memory_size: BM, in images. n_classes: |Y_t|, of the foreground.
    seen: n_c, images annotated with c seen so far, the one about to be offered included.
    exemplars: name -> classes annotated in it; M^c are the exemplars with class c.
    """

    memory_size: int
    n_classes: int
    seen: Mapping[int, int]
    exemplars: Mapping[str, frozenset[int]]

    def members(self, c: int) -> list[str]:
        """M^c: the names of the exemplars with a pixel annotated c."""
        return sorted(name for name, classes in self.exemplars.items() if c in classes)

    def largest(self) -> list[int]:
        """Every class that attains the largest |M^c|: the candidates for c_max."""
        classes = sorted({c for of_one in self.exemplars.values() for c in of_one})
        top = max(len(self.members(c)) for c in classes)
        return [c for c in classes if len(self.members(c)) == top]

    def outcomes(self, name: str, classes: frozenset[int]) -> dict[frozenset[str], Fraction]:
        """Set of names in memory after offering the image -> its exact probability, never 0."""
        if name in self.exemplars or len(self.exemplars) > self.memory_size:
            raise ValueError(f"{name!r} is in memory already, or memory holds more than {self.memory_size}")
        kept = frozenset(self.exemplars)
        if not classes:
            return {kept: Fraction(1)}
        # Which of the tied classes c_min is does not matter: only |M^c_min| enters.
        rarest = min(len(self.members(c)) for c in classes)
        below_average = rarest < Fraction(self.memory_size, self.n_classes)
        full = len(kept) == self.memory_size
        if not full:
            return {kept | {name}: Fraction(1)}
        evicted = self._evicted_from_largest() if below_average else self._evicted_by_reservoir(classes)
        result = {(kept - {old}) | {name}: p for old, p in evicted.items() if p > 0}
        rejected = 1 - sum(evicted.values(), Fraction(0))
        return result | ({kept: rejected} if rejected > 0 else {})

    def _evicted_from_largest(self) -> dict[str, Fraction]:
        """Probability of each exemplar to leave: c_max uniform over ties, then uniform in M^c_max."""
        evicted = dict.fromkeys(self.exemplars, Fraction(0))
        tied = self.largest()
        for c in tied:
            for old in self.members(c):
                evicted[old] += Fraction(1, len(tied) * len(self.members(c)))
        return evicted

    def _evicted_by_reservoir(self, classes: frozenset[int]) -> dict[str, Fraction]:
        """Probability of each exemplar to leave: classes in random order, m_c / n_c each, first success."""
        evicted = dict.fromkeys(self.exemplars, Fraction(0))
        orders = list(permutations(sorted(classes)))
        for order in orders:
            reached = Fraction(1, len(orders))
            for c in order:
                m_c = len(self.members(c))
                success = min(Fraction(1), Fraction(m_c, self.seen[c]))
                for old in self.members(c):
                    evicted[old] += reached * success / m_c
                reached *= 1 - success
        return evicted


# ------------------------------------------------------------------------------------------------- hand cases


def _logs(*images: list[list[list[float]]]) -> Floats:
    """Logits (N, C, H, W) from images[row][column][channel] of unnormalised probabilities.

    softmax(log w) = w / sum(w), so probabilities can be read off the integers.
    """
    return np.moveaxis(np.log(np.array(images, dtype=np.float64)), -1, 1)


def _ints(values: Sequence[Any]) -> Ints:
    return np.array(values, dtype=np.int64)


# Two images, four channels; C_0 = {1, 2}, C_1 = {3}, t = 1. Each pixel's weights sum to 20.
#   A, an incoming image, tau = 1: unlabelled pixels may be 0, 1, 2
#     A00 label 3     p(3) = 10/20 = .5
#     A01 label 0     best 1 with .85                      pseudo 1      sum over {0,1,2} = 19/20 = .95
#     A10 label 0     3 has .8 but is in C_tau; best 0, .1  no pseudo    sum over {0,1,2} =  4/20 = .2
#     A11 void
#   B, a memory image, tau = 0: unlabelled pixels may be 0, 3
#     B00 label 1     p(1) = 10/20 = .5
#     B01 label 0     best 0 with .85                      pseudo 0      sum over {0,3} = 18/20 = .9
#     B10 label 0     best 3 with .85                      pseudo 3      sum over {0,3} = 18/20 = .9
#     B11 label 0     best 0 with .5                       no pseudo     sum over {0,3} = 12/20 = .6
_BATCH: dict[str, Any] = {
    "logits": _logs(
        [[[4, 2, 4, 10], [1, 17, 1, 1]], [[2, 1, 1, 16], [9, 9, 1, 1]]],
        [[[5, 10, 3, 2], [17, 1, 1, 1]], [[1, 1, 1, 17], [10, 4, 4, 2]]],
    ),
    "labels": _ints([[[3, 0], [0, 255]], [[1, 0], [0, 0]]]),
    "tau": _ints([1, 0]),
    "classes_of_step": [[1, 2], [3]],
}


def _exemplars(**classes: set[int]) -> dict[str, frozenset[int]]:
    return {name: frozenset(value) for name, value in classes.items()}


def _cbes(memory_size: int, n_classes: int, seen: dict[int, int], **classes: set[int]) -> CBESReference:
    return CBESReference(memory_size, n_classes, seen, _exemplars(**classes))


def _names(**probabilities: Fraction) -> dict[frozenset[str], Fraction]:
    """ax=1/3 stands for {a, x} kept with probability 1/3: every letter is an exemplar."""
    return {frozenset(names): p for names, p in probabilities.items()}


# A case is its arguments plus "expected", numbers worked out on paper (logarithms natural, 7 decimals).
HAND_CASES: dict[str, dict[str, Any]] = {
    # Eq. 8, D = 2, tau = 12. u_0 = (1,0), u_1 = (0,5), u_2 = (-3,-4) have norms 1, 5, 5.
    # F = (3,4): cos = .6, .8, -25/25 = -1. F = (1,0): 1, 0, -.6. F = (0,2): 0, 1, -.8. F = (-5,0): -1, 0, .6.
    "cosine_logits": {
        "features": np.array([[[[3.0, 1.0], [0.0, -5.0]], [[4.0, 0.0], [2.0, 0.0]]]]),
        "weights": np.array([[1.0, 0.0], [0.0, 5.0], [-3.0, -4.0]]),
        "tau": 12.0,
        "expected": np.array([[[[7.2, 12.0], [0.0, -12.0]], [[9.6, 0.0], [12.0, 0.0]], [[-12.0, -7.2], [-9.6, 7.2]]]]),
    },
    # Eq. 4, three channels, weights sum to 10. Pixels annotated 1: p(1) = .5, .5, .8 in the first image, .2
    # in the second: mean over pixels 2.0/4 = .5 (over images first it would be .4). The void pixel and two
    # unlabelled ones, all with p(1) = .9, do not count. Class 2 has no pixel.
    "confidence": {
        "logits": _logs(
            [[[3, 5, 2], [4, 5, 1]], [[1, 8, 1], [0.5, 9, 0.5]]],
            [[[3, 2, 5], [0.5, 9, 0.5]], [[0.5, 9, 0.5], [8, 1, 1]]],
        ),
        "labels": _ints([[[1, 1], [1, 255]], [[1, 0], [0, 0]]]),
        "expected": {1: 0.5, 2: None},
    },
    # Eq. 3: .9 * .4 + .1 * .5 = .36 + .05 = .41. A class absent from the batch keeps .4.
    "ema": {"E_old": 0.4, "E_mb": 0.5, "mu": 0.9, "expected": 0.41, "expected_absent": 0.4},
    # Eq. 5 with eta = 4 ln 2: exp(-eta E) = 2^(-4E) = 1, 1/4, 1/2 for E = 0, .5, .25, sum 7/4.
    # Without class 3: 1, 1/4, sum 5/4.
    "sampling_probabilities": {
        "E": {1: 0.0, 2: 0.5, 3: 0.25},
        "eta": 4 * math.log(2),
        "expected": {(1, 2, 3): {1: 4 / 7, 2: 1 / 7, 3: 2 / 7}, (1, 2): {1: 0.8, 2: 0.2}, (): {}},
    },
    # Eq. 6 on _BATCH, delta = .8.
    "relabel": _BATCH | {"delta": 0.8, "expected": _ints([[[-1, 1], [-1, -1]], [[-1, 0], [3, -1]]])},
    # Eq. 6 with delta = .04: the restricted argmax is what is compared with delta, so A10 becomes background
    # (.1) although the full argmax is 3, of its own step; B11 (.5) becomes background too.
    "relabel_low_delta": _BATCH | {"delta": 0.04, "expected": _ints([[[-1, 1], [0, -1]], [[-1, 0], [3, 0]]])},
    # Eq. 6, "exceeds delta" is strict: logits (0, 0, -1000) are p = (.5, .5, 0) exactly; tau = 0, C_0 = {1},
    # so 0 or 2 may be chosen: 0 with p = .5, which is not > .5. Next pixel: p(2) = 1. Then void, annotated.
    "relabel_strict": {
        "logits": -1000.0 * np.array([[[[0, 1], [1, 0]], [[0, 1], [1, 0]], [[1, 0], [0, 1]]]]),
        "labels": _ints([[[0, 0], [255, 1]]]),
        "tau": _ints([0]),
        "classes_of_step": [[1], [2]],
        "delta": 0.5,
        "expected": _ints([[[-1, 2], [-1, -1]]]),
    },
    # Eq. 7 on _BATCH, delta = .8, gamma = .5, 7 non-void pixels.
    #   -log p(y): A00, B00: 2 x .6931472;  A01, B01, B10: 3 x -ln .85 = 3 x .1625189;  sum 1.8738512
    #   -log sum on R-bar: -ln .95 - ln .2 - 2 ln .9 - ln .6
    #                      = .0512933 + 1.6094379 + .2107210 + .5108256 = 2.3822778
    #   (1.8738512 + .5 x 2.3822778) / 7 = 3.0649901 / 7
    "composite_loss": _BATCH | {"delta": 0.8, "gamma": 0.5, "expected": 0.4378557},
    # The same with delta = 1 (nothing pseudo-labelled): (1.3862944 + 1.1911389) / 7 = 2.5774333 / 7
    "composite_loss_no_pseudo": _BATCH | {"delta": 1.0, "gamma": 0.5, "expected": 0.3682048},
    # Cross-entropy on _BATCH, 0 taken as background: -ln of .5, .05, .1 (A), .5, .85, .05, .5 (B)
    #   = 3 x .6931472 + 2 x 2.9957323 + 2.3025851 + .1625189 = 10.5360102;  / 7
    "cross_entropy": {"logits": _BATCH["logits"], "labels": _BATCH["labels"], "expected": 1.5051443},
    # MiB's cross-entropy on _BATCH: -ln of .5, .95, .2 (A), .5, .9, .9, .6 (B)
    #   = 1.3862944 + 2.3822778 = 3.7685722;  / 7
    "mib_cross_entropy": _BATCH | {"expected": 0.5383675},
    # MiB's distillation: old channels 0, 1, new class 2: p' = (p_0 + p_2, p_1), 1/(|Y_{t-1}| + 1) = 1/2.
    #   00 p = (1,2,1)/4,  q = (1,3)/4: p' = (.5, .5): ln 2 / 2 = .3465736
    #   01 p = (1,1,8)/10, q = (1,1)/2: p' = (.9, .1): (.5 x .1053605 + .5 x 2.3025851) / 2 = .6019864
    #      (a pixel annotated with the new class counts too)
    #   10 void
    #   11 p = (1,6,1)/8,  q = (4,1)/5: p' = (.25, .75): (.8 x 1.3862944 + .2 x .2876821) / 2 = .5832860
    #   (.3465736 + .6019864 + .5832860) / 3 = 1.5318460 / 3
    "mib_distillation": {
        "logits": _logs([[[1, 2, 1], [1, 1, 8]], [[1, 1, 1], [1, 6, 1]]]),
        "old_logits": _logs([[[1, 3], [1, 1]], [[1, 9], [4, 1]]]),
        "new_classes": [2],
        "labels": _ints([[[0, 2], [255, 0]]]),
        "expected": 0.5106153,
    },
    # MiB's initialisation: three new outputs, .5 - ln 4 = .5 - 1.3862944 = -.8862944; class 1 is untouched.
    "mib_init": {
        "weight": np.array([[1.0, 2.0], [3.0, 4.0]]),
        "bias": np.array([0.5, -1.0]),
        "n_new": 3,
        "expected": (
            np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]),
            np.array([-0.8862944, -1.0, -0.8862944, -0.8862944, -0.8862944]),
        ),
    },
    # mIoU, n = 4 (class 5 is of a later step). Pixels truth -> prediction: 0->0, 0->1, 1->1, void->3;
    # 1->1, 1->0, 0->0, 5->0. With 5 as background: 0->0 three times, 0->1 once, 1->1 twice, 1->0 once.
    # IoU_0 = 3/5, IoU_1 = 2/4; 2 and 3 are absent (3 predicted on void alone). (.6 + .5) / 2 = .55
    "miou": {
        "pred": _ints([[[0, 1], [1, 3]], [[1, 0], [0, 0]]]),
        "truth": _ints([[[0, 0], [1, 255]], [[1, 1], [0, 5]]]),
        "n": 4,
        "future_classes": "background",
        "expected_confusion": _ints([[3, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        "expected_iou": [0.6, 0.5, None, None],
        "expected": 0.55,
    },
    # The same, future classes ignored: 0->0 twice. IoU_0 = 2/4, IoU_1 = 2/4.
    "miou_future_ignored": {
        "pred": _ints([[[0, 1], [1, 3]], [[1, 0], [0, 0]]]),
        "truth": _ints([[[0, 0], [1, 255]], [[1, 1], [0, 5]]]),
        "n": 4,
        "future_classes": "ignore",
        "expected_confusion": _ints([[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        "expected_iou": [0.5, 0.5, None, None],
        "expected": 0.5,
    },
    # Class 2 is predicted once (0->2 for 0->1) but never true: IoU 0, in the mean. The pixel of the future
    # class 5 is predicted 1: an error of background and of class 1. 0->0 twice, 0->1 once, 0->2 once,
    # 1->1 twice, 1->0 once. IoU_0 = 2/5, IoU_1 = 2/4, IoU_2 = 0/1, class 3 absent. (.4 + .5 + 0) / 3 = .3
    "miou_predicted_but_absent": {
        "pred": _ints([[[0, 2], [1, 3]], [[1, 0], [0, 1]]]),
        "truth": _ints([[[0, 0], [1, 255]], [[1, 1], [0, 5]]]),
        "n": 4,
        "future_classes": "background",
        "expected_confusion": _ints([[2, 1, 1, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        "expected_iou": [0.4, 0.5, 0.0, None],
        "expected": 0.3,
    },
    # Algorithm 2. Not full: stored, however many of its class there are.
    "cbes_not_full": {
        "state": _cbes(3, 2, {1: 9}, a={1}, b={1}),
        "classes": {1},
        "expected": _names(abx=Fraction(1)),
    },
    # Full, |M^2| = 1 < 4/2: one of M^1 = {a, b, c} leaves.
    "cbes_below_average": {
        "state": _cbes(4, 2, {1: 9, 2: 9}, a={1}, b={1}, c={1}, d={2}),
        "classes": {2},
        "expected": _names(bcdx=Fraction(1, 3), acdx=Fraction(1, 3), abdx=Fraction(1, 3)),
    },
    # The same with an image of both classes: c_min is the rarer one, 2.
    "cbes_below_average_two_classes": {
        "state": _cbes(4, 2, {1: 9, 2: 9}, a={1}, b={1}, c={1}, d={2}),
        "classes": {1, 2},
        "expected": _names(bcdx=Fraction(1, 3), acdx=Fraction(1, 3), abdx=Fraction(1, 3)),
    },
    # Full, |M^2| = 1 < 3/2, which a division of integers (3 // 2 = 1) would miss. M^1 = {a, c}.
    "cbes_fractional_average": {
        "state": _cbes(3, 2, {1: 9, 2: 9}, a={1}, b={2}, c={1}),
        "classes": {2},
        "expected": _names(bcx=Fraction(1, 2), abx=Fraction(1, 2)),
    },
    # Full, a new class, 0 < 2/3; |M^1| = |M^2| = 1: c_max is 1 or 2, each with 1/2.
    "cbes_tie": {
        "state": _cbes(2, 3, {1: 9, 2: 9, 3: 1}, a={1}, b={2}),
        "classes": {3},
        "expected": _names(bx=Fraction(1, 2), ax=Fraction(1, 2)),
    },
    # Full, |M^3| = 1 < 4/3; M^1 = {a, b}, M^2 = {a, c} tie: a leaves with 1/2 x 1/2 + 1/2 x 1/2 = 1/2,
    # b and c with 1/4 each. (A uniform draw from the union would give 1/3 each.)
    "cbes_tie_shared": {
        "state": _cbes(4, 3, {1: 9, 2: 9, 3: 9}, a={1, 2}, b={1}, c={2}, d={3}),
        "classes": {3},
        "expected": _names(bcdx=Fraction(1, 2), acdx=Fraction(1, 4), abdx=Fraction(1, 4)),
    },
    # Full, |M^1| = 1 is not < 2/2: reservoir. m_1 / n_1 = 1/5.
    "cbes_reservoir_at_average": {
        "state": _cbes(2, 2, {1: 5, 2: 5}, a={1}, b={2}),
        "classes": {1},
        "expected": _names(bx=Fraction(1, 5), ab=Fraction(4, 5)),
    },
    # Reservoir with two classes, m/n = 1/2 for class 1 and 1/4 for class 2.
    #   order 1, 2: a leaves 1/2;             b leaves 1/2 x 1/4 = 1/8;  nothing 3/8
    #   order 2, 1: a leaves 3/4 x 1/2 = 3/8; b leaves 1/4;              nothing 3/8
    #   mean: a (1/2 + 3/8)/2 = 7/16, b (1/8 + 1/4)/2 = 3/16, nothing 3/8
    "cbes_reservoir_two_classes": {
        "state": _cbes(2, 2, {1: 2, 2: 4}, a={1}, b={2}),
        "classes": {1, 2},
        "expected": _names(bx=Fraction(7, 16), ax=Fraction(3, 16), ab=Fraction(3, 8)),
    },
    # Reservoir, m_1 = 2, n_1 = 4: 1/2, then a or b; the last exemplar of class 2 is not protected.
    "cbes_reservoir_shared": {
        "state": _cbes(2, 2, {1: 4, 2: 3}, a={1, 2}, b={1}),
        "classes": {1},
        "expected": _names(bx=Fraction(1, 4), ax=Fraction(1, 4), ab=Fraction(1, 2)),
    },
    # An image without an annotated class is not stored, though there is room.
    "cbes_no_class": {
        "state": _cbes(3, 2, {1: 1}, a={1}),
        "classes": set(),
        "expected": _names(a=Fraction(1)),
    },
}
