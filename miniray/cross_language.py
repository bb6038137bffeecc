"""Functions and classes in Java and C++: Ray can call them, miniray says that it cannot."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["cpp_function", "java_actor_class", "java_function"]


def _refuse(what: str) -> NoReturn:
    raise NotImplementedError(f"miniray runs Python only, and cannot call {what}: run this program on the real Ray.")


def java_function(class_name: str, function_name: str) -> Any:
    """Refuses: miniray runs Python only.

    Raises:
        NotImplementedError: always.

    Source: https://docs.ray.io/en/latest/ray-core/cross-language.html
    """
    _refuse(f"the Java function {class_name}.{function_name}")


def java_actor_class(class_name: str) -> Any:
    """Refuses: miniray runs Python only.

    Raises:
        NotImplementedError: always.

    Source: https://docs.ray.io/en/latest/ray-core/cross-language.html
    """
    _refuse(f"the Java class {class_name}")


def cpp_function(function_name: str) -> Any:
    """Refuses: miniray runs Python only.

    Raises:
        NotImplementedError: always.

    Source: https://docs.ray.io/en/latest/ray-core/cross-language.html
    """
    _refuse(f"the C++ function {function_name}")
