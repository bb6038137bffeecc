"""What Ray has and miniray never will: its libraries, and what needs more than one machine. One sentence for each."""

from __future__ import annotations

_LIBRARY = "it is one of Ray's libraries, and miniray is Ray Core alone"
_CLUSTER = "it manages machines, and miniray has one"

#: Name under `ray` -> why miniray does not have it.
ABSENT_PARTS = {
    "air": _LIBRARY,
    "autoscaler": _CLUSTER,
    "data": _LIBRARY,
    "llm": _LIBRARY,
    "ml": _LIBRARY,
    "rllib": _LIBRARY,
    "serve": _LIBRARY,
    "train": _LIBRARY,
    "tune": _LIBRARY,
    "workflow": "Ray has removed it, too",
    "util.collective": "it moves tensors between GPUs and machines",
    "util.sgd": _LIBRARY,
    "util.spark": _CLUSTER,
    "util.tpu": _CLUSTER,
    "util.xgboost": _LIBRARY,
    "util.lightgbm": _LIBRARY,
    "core": "it is Ray's compiled code",
    "experimental.channel": "it belongs to Ray's compiled graphs",
    "experimental.collective": "it moves tensors between GPUs and machines",
    "experimental.rdt": "it moves tensors between GPUs and machines",
}


def why_absent(name: str) -> str:
    """The sentence about `name` ("data", "tune.schedulers", ...), "" when nothing is known of it."""
    part = name
    while part:
        reason = ABSENT_PARTS.get(part)
        if reason is not None:
            return f"miniray has no ray.{part} ({reason}): run this program on the real Ray, `pip install ray`."
        part = part.rpartition(".")[0]
    return ""
