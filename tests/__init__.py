"""The test suite: mirrors `miniray/`, plus differential/ (against the real Ray), faults/, examples/ and docs/."""
