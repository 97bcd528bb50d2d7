"""POSIX semantics, written once over the record transaction of `meta.txn`."""
