"""Inodes, handles, reader and writer: the only place where metadata meets blocks."""
