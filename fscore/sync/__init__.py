"""Bringing versions to other volumes: plan, copy, verify, make visible."""
