"""Edges for Python programs: fsspec, and loaders. Convert, call `files`, convert back."""
