"""The decorators with which Ray marks what is public, under development or deprecated: marks, and no more.

As https://docs.ray.io/en/latest/_modules/ray/util/annotations.html
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from enum import Enum
from functools import wraps
from typing import Any

__all__ = ["AnnotationType", "Deprecated", "DeveloperAPI", "PublicAPI", "RayDeprecationWarning"]


class AnnotationType(Enum):
    """What a mark says."""

    PUBLIC_API = "PublicAPI"
    DEVELOPER_API = "DeveloperAPI"
    DEPRECATED = "Deprecated"
    UNKNOWN = "Unknown"


class RayDeprecationWarning(DeprecationWarning):
    """Something will be gone in a later version. Shown by default, unlike other DeprecationWarnings."""


warnings.filterwarnings("once", category=RayDeprecationWarning)


def PublicAPI(*args: Any, **kwargs: Any) -> Any:
    """Mark as public: ``@PublicAPI`` or ``@PublicAPI(stability="beta")``.

    Args:
        stability: "stable", "beta" or "alpha".
        api_group: a heading for the documentation.
    """
    if len(args) == 1 and not kwargs and callable(args[0]):
        return PublicAPI(stability="stable", api_group="Others")(args[0])
    stability = kwargs.get("stability", "stable")
    assert stability in ("stable", "beta", "alpha"), stability

    def wrap(obj: Any) -> Any:
        if stability != "stable":
            text = f"This API is in {stability} and may change before becoming stable."
            _append(obj, f"**PublicAPI ({stability}):** {text}")
        return _mark(obj, AnnotationType.PUBLIC_API, kwargs.get("api_group", "Others"))

    return wrap


def DeveloperAPI(*args: Any, **kwargs: Any) -> Any:
    """Mark as meant for developers of libraries."""
    if len(args) == 1 and not kwargs and callable(args[0]):
        return DeveloperAPI()(args[0])

    def wrap(obj: Any) -> Any:
        _append(obj, "**DeveloperAPI:** This API may change across minor Ray releases.")
        return _mark(obj, AnnotationType.DEVELOPER_API, "Others")

    return wrap


def Deprecated(*args: Any, **kwargs: Any) -> Any:
    """Mark as deprecated: ``@Deprecated`` or ``@Deprecated(message="Use g instead.", warning=True)``.

    Args:
        message: what to do instead.
        warning: also warn when it is used.
    """
    if len(args) == 1 and not kwargs and callable(args[0]):
        return Deprecated()(args[0])
    unknown = sorted(set(kwargs) - {"message", "warning"})
    if unknown:
        raise ValueError(f"Unknown kwargs: {unknown}")
    message = kwargs.get("message", "**DEPRECATED**: This API is deprecated and may be removed in future Ray releases.")

    def wrap(obj: Any) -> Any:
        _append(obj, message)
        _mark(obj, AnnotationType.DEPRECATED, "Others")
        return _warning(obj, message) if kwargs.get("warning") else obj

    return wrap


def _warning(obj: Any, message: str) -> Any:
    target: Callable[..., Any] = getattr(obj, "__init__") if isinstance(obj, type) else obj  # noqa: B009
    text = f"{obj.__name__} will be deprecated in a future version. {message}"

    @wraps(target)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        warnings.warn(text, RayDeprecationWarning, stacklevel=2)
        return target(*args, **kwargs)

    if isinstance(obj, type):
        obj.__init__ = wrapper  # type: ignore[misc]
        return obj
    return wrapper


def _append(obj: Any, text: str) -> None:
    doc = (obj.__doc__ or "").rstrip()
    try:
        obj.__doc__ = f"{doc}\n\n{text}\n" if doc else f"{text}\n"
    except AttributeError:
        pass  # a built-in


def _mark(obj: Any, kind: AnnotationType, group: str) -> Any:
    try:
        obj._annotated = getattr(obj, "__name__", None)
        obj._annotated_type = kind
        obj._annotated_api_group = group
    except (AttributeError, TypeError):
        pass  # what takes no attributes goes unmarked
    return obj
