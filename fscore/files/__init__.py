"""Paths, open files and walks: what programs see. Way in: `filesystem.Filesystem`."""
