"""Fills the metadata database of a new home: tables, pools, connections. Runs as a process of its own.

Reads one JSON document `{"pools": {name: slots}, "connections": [{...}]}` from standard input.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from sqlalchemy import select


def main() -> int:
    """Migrate, then write pools and connections; every step may be repeated."""
    wanted: dict[str, Any] = json.load(sys.stdin)
    from airflow.utils import db

    db.initdb()
    _write_pools(wanted.get("pools", {}))
    _write_connections(wanted.get("connections", []))
    return 0


def _write_pools(pools: dict[str, int]) -> None:
    from airflow.models.pool import Pool

    for name, slots in pools.items():
        Pool.create_or_update_pool(name, slots=slots, description="fscore", include_deferred=False)


def _write_connections(connections: list[dict[str, Any]]) -> None:
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        for fields in connections:
            known = session.scalar(select(Connection).where(Connection.conn_id == fields["conn_id"]))
            if known is not None:
                session.delete(known)
                session.flush()
            session.add(Connection(**fields))


if __name__ == "__main__":
    sys.exit(main())
