"""Row 2a, *decide*: each mechanism as a pure state machine: methods in, effects out. No socket, thread, clock,
environment or random source.
"""
