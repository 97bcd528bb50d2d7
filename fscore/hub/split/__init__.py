"""Tensor, pipeline and expert parallel splits, planned as ranges of existing files."""
