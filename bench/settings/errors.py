"""Refusals: one line that says what is wrong, where, and what is allowed."""

from __future__ import annotations


class RequestError(ValueError):
    """What was asked for is wrong; the message is one line: what, where, what is allowed."""


class MissingSettingError(RequestError):
    """A setting without a default was not given."""
