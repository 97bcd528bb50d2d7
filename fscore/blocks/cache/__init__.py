"""Caches of blocks; each may forget at any time."""
