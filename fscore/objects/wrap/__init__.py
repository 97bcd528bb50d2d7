"""Wrappers of an object store, one concern each, all with its interface."""
