"""The smallest program: four tasks, run side by side."""

import miniray as ray


@ray.remote
def square(x):
    return x * x


ray.init()
print(ray.get([square.remote(i) for i in range(4)]))
ray.shutdown()
