"""Row 5: what stands on the public API alone, under the names of `ray.util`."""
