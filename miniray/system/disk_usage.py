"""How much room files take."""

from __future__ import annotations

import os


def folder_size(path: str) -> int:
    """Bytes of all files below `path`, links as themselves; what vanishes meanwhile counts nothing."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                pass
    return total
