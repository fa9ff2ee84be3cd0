"""Bytes to batches: raw files, the sealed store, shuffled batches. Knows numpy and zarr, no torch."""
