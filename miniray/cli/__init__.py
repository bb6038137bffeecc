"""The command line: ``miniray start``, ``stop``, ``status``, ``run``."""
