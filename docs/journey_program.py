"""One task, whose journey docs/journey.py records."""

import miniray as ray


@ray.remote
def square(x):
    return x * x


ray.init(num_cpus=1)
print(ray.get(square.remote(7)))
