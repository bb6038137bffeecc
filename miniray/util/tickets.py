"""The tickets that callers of a waiting line draw: one per call, so that it can be withdrawn."""

from __future__ import annotations

import os
from itertools import count

from miniray.util.waiting_line import Ticket

_numbers = count(1)


def draw_ticket() -> Ticket:
    """A ticket for one call of this process."""
    return os.getpid(), next(_numbers)
