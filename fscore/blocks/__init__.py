"""Bytes of slices, and the caches that hold them. Way in: `store.BlockStore`. Knows no metadata."""
