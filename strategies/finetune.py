"""finetune, the lower reference: cross-entropy on the incoming batch, no memory."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from strategies.method import Method
from strategies.protocol import STRICT


@dataclass(frozen=True, config=STRICT)
class FinetuneParameters:
    """finetune has no hyper-parameters."""


class Finetune(Method):
    """Cross-entropy on the incoming images alone."""

    citation: ClassVar[str] = "reference"
    Parameters = FinetuneParameters
    resumable: ClassVar[bool] = True
