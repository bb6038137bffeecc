"""What a question about the state of a session can fail with, under Ray's names."""

from __future__ import annotations


class RayStateApiException(Exception):
    """The question could not be answered, or only in part."""


class ServerUnavailable(RayStateApiException):
    """The head did not answer."""


class DataSourceUnavailable(Exception):
    """A process did not tell what it knows."""
