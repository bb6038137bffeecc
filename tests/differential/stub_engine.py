"""An engine that runs nothing: for the programs with which the harness itself is tested."""


def init(**arguments: object) -> None:
    """Starts nothing."""


def shutdown() -> None:
    """Ends nothing."""
