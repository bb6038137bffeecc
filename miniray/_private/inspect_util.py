"""What kind of function something is, under Ray's names."""

from __future__ import annotations

import inspect
from typing import Any


def is_cython(obj: Any) -> bool:
    """Whether it is a function that Cython has compiled."""
    function = getattr(obj, "__func__", obj)
    return type(function).__name__ in ("cython_function_or_method", "fused_cython_function")


def is_function_or_method(obj: Any) -> bool:
    """Whether it is a function or a method, a compiled one, too."""
    return inspect.isfunction(obj) or inspect.ismethod(obj) or is_cython(obj)


def is_class_method(f: Any) -> bool:
    """Whether it is a method bound to its class."""
    return inspect.isclass(getattr(f, "__self__", None))


def is_static_method(cls: type, f_name: str) -> bool:
    """Whether the class, or one of its bases, has a static method of this name."""
    for base in inspect.getmro(cls):
        if f_name in base.__dict__:
            return isinstance(base.__dict__[f_name], staticmethod)
    return False
