"""The comparison with real Ray: small programs, Ray's stored answers to them, and the run that holds miniray to these.

`programs/` holds the programs, `answers/` what real Ray answered, `bullets.py` the promises that the programs stand for
and `TABLE.md` (generated) which promise has which program. `python -m tests.differential.run --help` runs a file by
hand, `python -m tests.differential.record --help` asks real Ray again.
"""
