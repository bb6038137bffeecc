"""How fast miniray is, and how much memory it takes: one module per claim.

``python -m benchmarks`` measures everything: miniray, the real Ray in the same run, and what the machine allows
(`limits`). ``python -m benchmarks.task_sync`` measures one claim. Each module that holds claims names them in
``CLAIMS``; the others are the instrument:

=============  =======================================================================
`claims`       what a claim is: what is measured, how, and which goals it has
`engines`      miniray and Ray: interpreters, environment, fresh processes
`session`      what runs in such a process: a session, and the claims measured in it
`limits`       what the machine allows: copies, forks, imports, process pools; `round_trips` of ZeroMQ
`alternation`  the trials: limits, miniray, Ray, and the other way round
`results`      figures, medians, deviations, ratios, goals
`table`        the text that is printed, and the page ``docs/benchmarks.md``
=============  =======================================================================
"""
