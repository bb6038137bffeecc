"""References as values: a map whose results stay in the object store until one task folds them.

A reference given as an argument arrives as the value it stands for. A reference inside a list or dict arrives as a
reference, so that a task can hand work on without ever fetching it.
"""

import miniray as ray


@ray.remote
def load(day):
    return [(day * 37 + hour * 11) % 101 for hour in range(24)]


@ray.remote
def mean(values):
    return sum(values) / len(values)


@ray.remote
def warmest(means_by_day):
    """`means_by_day` holds references; this task fetches them itself."""
    days = list(means_by_day)
    means = ray.get([means_by_day[day] for day in days])
    return max(zip(means, days, strict=True))


ray.init()
days = [load.remote(day) for day in range(1, 8)]  # started at once, none is waited for
means = [mean.remote(day) for day in days]  # top-level references: each task gets the 24 numbers
best = warmest.remote(dict(enumerate(means, start=1)))  # nested references: the task gets the references
for number, value in enumerate(ray.get(means), start=1):
    print(f"day {number}: {value:.2f}")
value, day = ray.get(best)
print(f"warmest: day {day} with {value:.2f}")

slow_first = [load.remote(day) for day in range(10)]
ready, rest = ray.wait(slow_first, num_returns=4)
print(f"{len(ready)} results are ready, {len(rest)} may still be under way")
ray.shutdown()
