"""Ray's experimental modules."""
