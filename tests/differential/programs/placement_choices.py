"""Where the next task goes, right after another has ended: nothing of the last one is in its way."""

# mypy: ignore-errors
from __future__ import annotations

import importlib
from collections import Counter

from ..catalog import program
from .virtual_nodes import SESSION as NODES
from .virtual_nodes import id_of, names, strategies_of, where

AREA = "scheduling"
SESSION = NODES


def go(ray, **options):
    return names(ray)[ray.get(ray.remote(where).options(**options).remote(ray.__name__), timeout=30)]


def mostly(ray, before, after):
    """Where most of the second ones of five pairs go."""
    found = []
    for _ in range(5):
        go(ray, num_cpus=2, **before)
        found.append(go(ray, num_cpus=2, **after))
    return Counter(found).most_common(1)[0][0]


@program("scheduling/spread")
def spread_one_after_the_other(ray):
    return sorted({go(ray, scheduling_strategy="SPREAD") for _ in range(9)})


@program("scheduling/node-labels")
def soft_labels_after_a_task_on_the_node(ray):
    inside = importlib.import_module(f"{ray.__name__}.util.scheduling_strategies").In
    soft = strategies_of(ray).NodeLabelSchedulingStrategy({"zone": inside("a", "b")}, soft={"zone": inside("b")})
    hard = strategies_of(ray).NodeAffinitySchedulingStrategy(id_of(ray, "two"), False)
    return [
        mostly(ray, {"scheduling_strategy": hard}, {"scheduling_strategy": soft}),
        mostly(ray, {"resources": {"two": 0.1}}, {"scheduling_strategy": soft}),
    ]


@program("scheduling/label-selectors")
def fallbacks_after_a_task_on_the_node(ray):
    wanted = {"label_selector": {"zone": "b"}, "fallback_strategy": [{"label_selector": {"zone": "a"}}]}
    return [mostly(ray, {"resources": {"two": 0.1}}, wanted), mostly(ray, wanted, wanted)]


@program("scheduling/node-affinity")
def spilling_affinities_after_a_task_on_the_node(ray):
    spills = strategies_of(ray).NodeAffinitySchedulingStrategy(id_of(ray, "two"), True, _spill_on_unavailable=True)
    return mostly(ray, {"resources": {"two": 0.1}}, {"scheduling_strategy": spills})
