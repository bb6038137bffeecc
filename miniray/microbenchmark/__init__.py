"""For the command ``miniray microbenchmark``: workloads, those who run them, and how they take turns."""
