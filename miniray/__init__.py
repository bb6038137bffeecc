"""miniray: the Ray Core API in pure Python on one machine."""
