"""``ray.types``: `ObjectRef` for type hints, as ``ObjectRef[int]``.

Source: https://docs.ray.io/en/latest/ray-core/type-hint.html
"""

from miniray.refs import ObjectRef

__all__ = ["ObjectRef"]
