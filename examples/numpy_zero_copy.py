"""One array, many readers: it is stored once in shared memory, and each task looks at it without a copy.

Needs numpy, which miniray itself does not.
"""

import numpy

import miniray as ray


@ray.remote
def column_sum(table, column):
    return float(table[:, column].sum())


@ray.remote
def look(table):
    return {"shape": table.shape, "writeable": table.flags.writeable, "owns its data": table.flags.owndata}


ray.init()
table = numpy.arange(4_000_000, dtype=numpy.float64).reshape(1_000_000, 4)
ref = ray.put(table)  # the one copy

print(f"{table.nbytes:,} bytes, stored once")
print("column sums:", ray.get([column_sum.remote(ref, column) for column in range(4)]))
print("what a task sees:", ray.get(look.remote(ref)))

view = ray.get(ref)
try:
    view[0, 0] = 1
except ValueError as error:
    print("written to:", error)
mine = view.copy()
mine[0, 0] = 1
print("a copy may be changed:", mine[0, 0], "while the stored one stays:", view[0, 0])
ray.shutdown()
