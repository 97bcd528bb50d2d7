"""Engines that store records and know no semantics. Way in: `registry.open_engine`."""
