"""Warnings about parts of the API that Ray keeps only for old programs, in Ray's class and words."""

from __future__ import annotations

import sys
import warnings


class RayDeprecationWarning(DeprecationWarning):
    """Something that a later Ray may not have. Unlike other deprecation warnings it is shown by default."""

    __module__ = "miniray.util.annotations"  # where Ray has it, and where it is found as well


if not sys.warnoptions:
    warnings.simplefilter("module", RayDeprecationWarning)


def warn_deprecated(instead: str, stacklevel: int = 3) -> None:
    """Warn the caller of the function that calls this one.

    Args:
        instead: what to use, as a sentence.
        stacklevel: as of `warnings.warn`; 2 is the caller of this function.
    """
    warnings.warn(
        "This API is deprecated and may be removed in future Ray releases. You could suppress this warning by setting "
        f'env variable PYTHONWARNINGS="ignore::DeprecationWarning"\n{instead}',
        RayDeprecationWarning,
        stacklevel=stacklevel,
    )
