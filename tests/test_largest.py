"""The class of every pixel without scores of all pixels: what the scaled scores' largest is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from strategies.networks.largest import largest_scaled


def smooth(*shape: int, seed: int = 0) -> Tensor:
    """Scores with large regions, as those of a network that has learned."""
    torch.manual_seed(seed)
    coarse = torch.randn(*shape[:2], max(1, shape[2] // 6), max(1, shape[3] // 6))
    return F.interpolate(coarse, size=shape[2:], mode="bicubic")


SCORES = [torch.randn(2, 9, 12, 16), smooth(3, 21, 12, 16), smooth(1, 2, 1, 1), smooth(1, 5, 1, 8)]


@pytest.mark.parametrize("size", [(48, 64), (47, 61), (12, 16), (7, 9), (13, 200)])
@pytest.mark.parametrize("scores", SCORES)
def test_it_is_that_of_the_scaled_scores_but_where_two_are_as_good_as_equal(
    scores: Tensor, size: tuple[int, int]
) -> None:
    for form in (torch.contiguous_format, torch.channels_last):
        found = largest_scaled(scores.contiguous(memory_format=form), size)
        scaled = F.interpolate(scores.double(), size=size, mode="bilinear", align_corners=False)
        first, second = scaled.topk(2, 1).values.unbind(1)
        told = first - second > 1e-5
        assert told.float().mean() > 0.99
        assert torch.equal(found[told], scaled.max(1).indices[told])


def test_of_equal_scores_the_first_is_taken() -> None:
    assert not largest_scaled(torch.ones(1, 4, 3, 3), (9, 9)).any()


def test_no_more_scores_are_held_than_those_of_some_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strategies.networks.largest._AT_ONCE", 40)
    scores = smooth(1, 9, 12, 15)
    most = 0
    real = torch.lerp

    def watched(*of: Tensor) -> Tensor:
        nonlocal most
        found = real(*of)
        most = max(most, found.numel())
        return found

    monkeypatch.setattr(torch, "lerp", watched)
    largest_scaled(scores, (48, 60))
    assert 0 < most <= 40
