"""Marks for functions and classes: public, for developers, deprecated. They say so in the docstring, and can be asked.

Source: https://docs.ray.io/en/latest/ray-contribute/stability.html
"""

from __future__ import annotations

import functools
import inspect
import warnings
from enum import Enum
from typing import Any

from miniray.deprecation import RayDeprecationWarning as RayDeprecationWarning

__all__ = ["AnnotationType", "Deprecated", "DeveloperAPI", "PublicAPI", "RayDeprecationWarning"]

_DEPRECATED = "This API is deprecated and may be removed in future Ray releases."
_SUPPRESS = (
    f'{_DEPRECATED} You could suppress this warning by setting env variable PYTHONWARNINGS="ignore::DeprecationWarning"'
)


class AnnotationType(Enum):
    """The kinds of marks."""

    PUBLIC_API = "PublicAPI"
    DEVELOPER_API = "DeveloperAPI"
    DEPRECATED = "Deprecated"
    UNKNOWN = "Unknown"


def PublicAPI(*args: Any, **kwargs: Any) -> Any:
    """Mark what is for users.

    Args:
        *args: the function or class, when used without parentheses.
        **kwargs: stability ("alpha", "beta" or "stable"), api_group (a name).

    Raises:
        AssertionError: an unknown stability.
    """
    if _is_bare(args, kwargs):
        return PublicAPI(stability="stable", api_group="Others")(args[0])
    stability = kwargs.get("stability", "stable")
    assert stability in ("alpha", "beta", "stable"), stability

    def wrap(target: Any) -> Any:
        if stability != "stable":
            text = f"**PublicAPI ({stability}):** This API is in {stability} and may change before becoming stable."
            _append_doc(target, message=text)
        _mark_annotated(target, type=AnnotationType.PUBLIC_API, api_group=kwargs.get("api_group", "Others"))
        return target

    return wrap


def DeveloperAPI(*args: Any, **kwargs: Any) -> Any:
    """Mark what is for those who build on Ray.

    Args:
        *args: the function or class, when used without parentheses.
        **kwargs: without effect.
    """
    if _is_bare(args, kwargs):
        return DeveloperAPI()(args[0])

    def wrap(target: Any) -> Any:
        _append_doc(target, message="**DeveloperAPI:** This API may change across minor Ray releases.")
        _mark_annotated(target, type=AnnotationType.DEVELOPER_API)
        return target

    return wrap


def Deprecated(*args: Any, **kwargs: Any) -> Any:
    """Mark what may go.

    Args:
        *args: the function or class, when used without parentheses.
        **kwargs: message (what to use), warning (True: whoever uses it is warned).

    Raises:
        ValueError: other keyword arguments.
    """
    if _is_bare(args, kwargs):
        return Deprecated()(args[0])
    message = kwargs.pop("message", "")
    warning = kwargs.pop("warning", False)
    if kwargs:
        raise ValueError(f"Unknown kwargs: {kwargs.keys()}")
    text = f"**DEPRECATED**: {_DEPRECATED}" + (f"\n{message}" if message else "")

    def inner(target: Any) -> Any:
        _append_doc(target, message=text, directive="warning")
        _mark_annotated(target, type=AnnotationType.DEPRECATED)
        return _warning(target, f"{_SUPPRESS}\n{message}" if message else _SUPPRESS) if warning else target

    return inner


def _is_bare(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return len(args) == 1 and not kwargs and callable(args[0])


def _warning(target: Any, text: str) -> Any:
    if inspect.isclass(target):
        constructor = target.__init__

        @functools.wraps(constructor)
        def init(*args: Any, **kwargs: Any) -> None:
            warnings.warn(text, RayDeprecationWarning, stacklevel=2)
            constructor(*args, **kwargs)

        target.__init__ = init  # type: ignore[method-assign]
        return target

    @functools.wraps(target)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        warnings.warn(text, RayDeprecationWarning, stacklevel=2)
        return target(*args, **kwargs)

    return wrapper


def _append_doc(target: Any, *, message: str, directive: str | None = None) -> None:
    """Put a paragraph, or a directive of Sphinx, at the end of a docstring, as far to the right as that is."""
    doc = (target.__doc__ or "").rstrip()
    indent = " " * _get_indent(doc)
    inner = indent + ("    " if directive else "")
    lines = "\n".join(inner + line for line in message.split("\n"))
    opening = f"{indent}.. {directive}::\n\n" if directive else ""
    try:
        target.__doc__ = f"{doc}\n\n{opening}{lines}\n{indent}"
    except AttributeError:
        pass  # a built-in


def _mark_annotated(target: Any, type: AnnotationType = AnnotationType.UNKNOWN, api_group: str = "Others") -> None:
    if hasattr(target, "__name__"):
        try:
            target._annotated = target.__name__
            target._annotated_type = type
            target._annotated_api_group = api_group
        except (AttributeError, TypeError):
            pass  # what takes no attributes goes unmarked


def _is_annotated(target: Any) -> bool:
    """Whether it carries a mark of its own; what it has from a base class is none."""
    return hasattr(target, "_annotated") and target._annotated == target.__name__


def _get_indent(docstring: str) -> int:
    """How far the second and the following lines of a docstring are to the right."""
    lines = [line for line in docstring.split("\n")[1:] if line.strip()]
    return len(lines[0]) - len(lines[0].lstrip()) if lines else 0
