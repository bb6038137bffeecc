"""The version of miniray, and of the Ray whose API it has."""

__version__ = "0.1.0"

#: The release of Ray that miniray is compared with.
RAY_VERSION = "2.60.0"
