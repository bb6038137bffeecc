"""``ray.util.helpers``: where Ray has `as_completed` and `map_unordered`."""

from miniray.util.completion import as_completed, map_unordered

__all__ = ["as_completed", "map_unordered"]
