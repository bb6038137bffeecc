"""Row 2b, *do*: sockets, shared memory, processes, clocks, files. No decisions: those are made in `state_machines`."""
