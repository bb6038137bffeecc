"""What test_local_mode calls: functions and classes of a module that can be imported."""

from __future__ import annotations

import miniray


def helper() -> str:
    return "the real one"


@miniray.remote
def uses_helper() -> str:
    return helper()


@miniray.remote
class UsesHelper:
    def call(self) -> str:
        return helper()
