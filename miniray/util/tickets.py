"""The tickets that callers of a waiting line draw: one per call, so that it can be confirmed or withdrawn."""

from __future__ import annotations

import os
from itertools import count
from typing import Any

from miniray.util.waiting_line import Ticket

_numbers = count(1)


def draw_ticket() -> Ticket:
    """A ticket for one call of this process."""
    return os.getpid(), next(_numbers)


def confirm(actor: Any, ticket: Ticket) -> None:
    """Tell the actor of a line that the items of this call have arrived."""
    actor.confirm.remote(ticket)
    core = getattr(actor, "_core", None)  # a handle of another engine has none
    if core is None:
        return
    with core.lock:
        core.flush()  # not with what comes next: if this process died before that, its items would come back


def withdraw(actor: Any, ticket: Ticket) -> None:
    """Tell the actor of a line that nothing came of this call, or that nobody wants it any more."""
    try:
        actor.withdraw.remote(ticket)
    except Exception:
        pass  # the session is over, and the line with it
