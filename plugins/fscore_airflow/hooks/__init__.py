"""Connections to volumes."""
