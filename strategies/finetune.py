"""finetune, the lower reference: cross-entropy on the incoming batch, no memory."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from strategies.learning.method import CrossEntropy, CrossEntropyParameters
from strategies.networks.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class FinetuneParameters(CrossEntropyParameters):
    """finetune's default is the other one: without memory, `ignore` leaves nothing that holds the new classes back."""

    unlabelled: Literal["ignore", "background"] = "background"


class Finetune(CrossEntropy):
    """Cross-entropy on the incoming images alone."""

    citation: ClassVar[str] = "reference"
    Parameters = FinetuneParameters
    protocols: ClassVar[tuple[str, ...]] = ("online", "offline")
    resumable: ClassVar[bool] = True
