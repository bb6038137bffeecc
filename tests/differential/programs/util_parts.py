"""Smaller parts of `util`: parallel iterators, groups of actors, annotations."""

# mypy: ignore-errors
from __future__ import annotations

import importlib
import warnings

from ..catalog import program
from ..observe import outcome, type_name

AREA = "util"
SESSION = {"num_cpus": 8}


def part(ray, name):
    return importlib.import_module(f"{ray.__name__}.util.{name}")


def double(x):
    return x * 2


@program("util/iter")
def what_iterators_show(ray):
    iter_ = part(ray, "iter")
    items = iter_.from_items([1, 2, 3, 4], num_shards=2)
    each = items.for_each(double)
    parallel = [
        items,
        iter_.from_range(4, 1, repeat=True),
        iter_.from_iterators([range(3)], name="named"),
        each.filter(bool),
        each.batch(2).flatten(),
        each.combine(lambda x: [x]),
        each.local_shuffle(3),
        each.transform(lambda inner: inner),
        each.select_shards([0]),
        each.union(items),
    ]
    gathered = each.gather_sync()
    local = [
        gathered,
        each.gather_async(),
        each.batch_across_shards(),
        each.get_shard(1),
        gathered.for_each(double).filter(bool).batch(2).flatten(),
        gathered.combine(double),
        gathered.shuffle(2),
        gathered.transform(double),
        gathered.zip_with_source_actor(),
        gathered.duplicate(2)[1],
        gathered.union(each.gather_sync()),
    ]
    return [*map(repr, parallel), *map(str, local), items.num_shards()]


@program("util/iter")
def items_in_parallel(ray):
    iter_ = part(ray, "iter")
    items = iter_.from_items([1, 2, 3, 4], num_shards=2)
    seven = iter_.from_range(7, 2)
    return [
        list(seven.gather_sync()),
        sorted(seven.gather_async()),
        list(seven.batch_across_shards()),
        list(seven.get_shard(1)),
        [list(shard) for shard in seven.shards()],
        list(seven.batch(2).gather_sync()),
        list(seven.batch(2).flatten().gather_sync()),
        list(items.for_each(double).filter(lambda x: x > 2).gather_sync()),
        list(items.combine(lambda x: [x, x]).gather_sync()),
        list(items.transform(lambda inner: (x + 1 for x in inner)).gather_sync()),
        items.take(3),
        items.union(items.for_each(double)).num_shards(),
        outcome(lambda: list(items), text="full"),
        outcome(lambda: iter(items), text="full"),
    ]


@program("util/iter")
def items_of_other_shards(ray):
    iter_ = part(ray, "iter")
    nine = iter_.from_range(9, 3)
    return [
        list(nine.select_shards([0, 2]).gather_sync()),
        [sorted(shard) for shard in iter_.from_range(7, 1).repartition(3).shards()],
        list(iter_.from_range(8, 1).local_shuffle(4, seed=0).gather_sync()),
        iter_.from_range(3, 1, repeat=True).take(7),
    ]


@program("util/iter")
def items_one_after_the_other(ray):
    iter_ = part(ray, "iter")
    shards = iter_.from_range(6, 2)

    def local():
        return shards.gather_sync()

    def copies():
        one, other = local().duplicate(2)
        return list(zip(one, other, strict=False))

    return [
        list(local().for_each(double)),
        list(local().batch(4)),
        list(local().batch(4).flatten()),
        list(local().filter(lambda x: x % 2)),
        list(local().combine(lambda x: [x] * 2)),
        local().take(2),
        list(local().shuffle(3, seed=0)),
        list(local().transform(lambda inner: (x * 10 for x in inner))),
        outcome(lambda: list(local().zip_with_source_actor())),
        copies(),
        next(local()),
        outcome(lambda: local().duplicate(1)),
    ]


@program("util/iter")
def metrics_of_iterators(ray):
    iter_ = part(ray, "iter")

    def count(x):
        iter_.LocalIterator.get_metrics().counters["seen"] += 1
        return x

    local = iter_.from_range(3, 1).gather_sync().for_each(count)
    return [
        list(local),
        dict(local.shared_metrics.get().counters),
    ]


@program("util/iter")
def iterators_of_ones_own_actors(ray):
    iter_ = part(ray, "iter")

    class Worker(iter_.ParallelIteratorWorker):
        def __init__(self):
            super().__init__(range(3), False)

    worker = ray.remote(Worker)
    return [
        list(iter_.from_actors([worker.remote(), worker.remote()]).gather_sync()),
        repr(iter_.from_actors([worker.remote()])),
        repr(iter_.from_actors([worker.remote()], name="named")),
    ]


class Counter:
    def __init__(self, first=0, step=1):
        self.value, self.step = first, step

    def add(self, times):
        self.value += times * self.step
        return self.value


@program("util/actor-group")
def groups_of_actors(ray):
    group_class = part(ray, "actor_group").ActorGroup
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        group = group_class(Counter, num_actors=2, init_args=(1,), init_kwargs={"step": 2})
    answers = [
        [[type_name(warning.category), str(warning.message)] for warning in caught],
        len(group),
        ray.get(group.add.remote(2)),
        ray.get(group.add.remote(0)),
        [type(group[0]).__name__, group[0].metadata, group.actor_metadata, len(group.actors)],
        outcome(lambda: group[5]),
        outcome(lambda: group.add(1)),
        outcome(lambda: group.start()),
    ]
    group.add_actors(1)
    answers.append(ray.get(group.add.remote(0)))
    group.remove_actors([0, 9])
    answers.append(ray.get(group.add.remote(0)))
    group.shutdown()
    answers += [len(group), list(group.actors), outcome(lambda: group.add.remote(1))]
    group.start()
    answers.append(ray.get(group.add.remote(0)))
    group.shutdown(0)
    return [
        *answers,
        outcome(lambda: group_class(Counter, num_actors=0)),
        outcome(lambda: group_class(Counter, num_cpus_per_actor=-1)),
    ]


@program("util/annotations")
def annotations_of_code(ray):
    annotations = part(ray, "annotations")

    def documented():
        pass

    # Not written as one: Python 3.13 takes the indentation off.
    documented.__doc__ = "First line.\n\n        More.\n        "

    def plain():
        """One line."""

    class Class:
        """A class."""

        def __init__(self, value):
            self.value = value

    def show(target):
        return [
            target.__doc__,
            target._annotated,
            str(target._annotated_type),
            target._annotated_api_group,
            annotations._is_annotated(target),
        ]

    def copy(function):
        def inner():
            return 1

        inner.__doc__ = function.__doc__
        return inner

    answers = [
        show(mark(copy(function)))
        for function in (documented, plain)
        for mark in (
            annotations.PublicAPI,
            annotations.PublicAPI(stability="alpha", api_group="Group"),
            annotations.DeveloperAPI,
            annotations.Deprecated,
            annotations.Deprecated(message="Use that."),
        )
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = annotations.Deprecated(message="Use that.", warning=True)(Class)(5).value
        result = annotations.Deprecated(warning=True)(copy(plain))()
    return [
        *answers,
        value,
        result,
        [[type_name(warning.category), str(warning.message)] for warning in caught],
        outcome(lambda: annotations.PublicAPI(stability="gamma")),
        outcome(lambda: annotations.Deprecated(unknown=1)),
        [kind.name for kind in annotations.AnnotationType],
    ]
