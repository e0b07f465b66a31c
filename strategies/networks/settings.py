"""Settings of networks, readable without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""For dataclasses of settings and hyper-parameters: an unknown name is an error."""

HeadName = Literal["linear", "cosine"]
NetworkName = Literal["small", "deeplabv3-resnet101"]
Precision = Literal["fp32", "bf16"]
