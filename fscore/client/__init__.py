"""The Python edge: fsspec and loaders."""
