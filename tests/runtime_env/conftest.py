"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of virtual environments for this module alone."""
    path = tmp_path_factory.mktemp("environments")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIRAY_ENVIRONMENT_CACHE", str(path))
        patch.setenv("PIP_NO_INDEX", "1")
        yield path
