"""Caches of plain blocks; each may forget at any time. `api.BlockCache` is what they promise."""
