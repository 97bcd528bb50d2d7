"""The tables of a volume in SQL, exactly as the official client makes them (volume-format.md 3.1, 3.2).

What each table means:

* `setting` one row `format`; `counter` next ids and totals; `edge` directory entries; `node` attributes.
* `chunk` one row a chunk, all its slice records in one blob; `chunk_ref` one row a slice, refs <= 0 = delete pending.
* `delslices` records parked by compaction; `delfile` files whose data is to be deleted; `sustained` deleted, but open.
* `session2` clients; `flock`, `plock` their locks; `dir_stats`, `dir_quota`, `user_group_quota` usage and limits.
* `detached_node` clones not linked yet; `acl` rules; `delegation_token`, `change_log` kept as they are found.

Times of `node` are microseconds, with the rest of the nanoseconds in columns of their own. Unique indexes are called
`UQE_<table>_<group>`, others `IDX_<table>_<column>`: a client drops indexes whose names it does not know.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

Kind = sa.types.TypeEngine[Any]

MYSQL: Final[dict[str, Any]] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
"""Names and counters are told apart byte by byte, whatever the database's default is (volume-format.md 3.1)."""
FORMAT: Final = "format"
"""Name of the only row of the setting table."""

I64: Final[Kind] = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
I32: Final[Kind] = sa.Integer()
STR: Final[Kind] = sa.String(255).with_variant(sa.Text(), "sqlite")
TEXT: Final[Kind] = sa.Text()
BLOB: Final[Kind] = sa.LargeBinary()


def _binary(length: int) -> Kind:
    return sa.LargeBinary().with_variant(sa.VARBINARY(length), "mysql", "mariadb")


class Tables:
    """The tables with their prefix: `jfs_`, or `jfs_<x>_` for the URL parameter `table_prefix=x`."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = f"jfs_{prefix}_" if prefix else "jfs_"
        self.metadata = sa.MetaData()
        self._make_tree()
        self._make_data()
        self._make_clients()
        self._make_limits()

    def _make_tree(self) -> None:
        self.setting = self._table("setting", _key("name", STR), _col("value", TEXT))
        self.counter = self._table("counter", _key("name", STR), _col("value", I64))
        self.edge = self._table(
            "edge", _serial(), _col("parent", I64), _col("name", _binary(255)), _col("inode", I64), _col("type", I32)
        )
        self._unique(self.edge, "edge", "parent", "name")
        self._index(self.edge, "inode")
        self.node = self._table(
            "node",
            _key("inode", I64),
            *(_col(name, I32) for name in ("type", "flags", "mode", "uid", "gid")),
            *(_col(name, I64) for name in ("atime", "mtime", "ctime")),
            *(
                sa.Column(f"{name}nsec", I32, nullable=False, server_default=sa.text("0"))
                for name in ("atime", "mtime", "ctime")
            ),
            _col("nlink", I32),
            _col("length", I64),
            _col("rdev", I32, null=True),
            _col("parent", I64, null=True),
            *(_col(name, I32, null=True) for name in ("access_acl_id", "default_acl_id", "tier_id")),
        )
        self.symlink = self._table("symlink", _key("inode", I64), _col("target", _binary(4096)))
        self.xattr = self._table("xattr", _serial(), _col("inode", I64), _col("name", STR), _col("value", BLOB))
        self._unique(self.xattr, "name", "inode", "name")

    def _make_data(self) -> None:
        self.chunk = self._table("chunk", _serial(), _col("inode", I64), _col("indx", I32), _col("slices", BLOB))
        self._unique(self.chunk, "chunk", "inode", "indx")
        self.chunk_ref = self._table("chunk_ref", _key("chunkid", I64), _col("size", I32), _col("refs", I32))
        self._index(self.chunk_ref, "refs")
        self.delslices = self._table("delslices", _key("chunkid", I64), _col("deleted", I64), _col("slices", BLOB))
        self.delfile = self._table("delfile", _key("inode", I64), _col("length", I64), _col("expire", I64))
        self.detached_node = self._table("detached_node", _key("inode", I64), _col("added", I64))

    def _make_clients(self) -> None:
        self.session2 = self._table("session2", _key("sid", I64), _col("expire", I64), _col("info", BLOB, null=True))
        self.sustained = self._table("sustained", _serial(), _col("sid", I64), _col("inode", I64))
        self._unique(self.sustained, "sustained", "sid", "inode")
        owner = ("inode", "sid", "owner")
        self.flock = self._table("flock", _serial(), *(_col(name, I64) for name in owner), _col("ltype", I32))
        self._unique(self.flock, "flock", *owner)
        self.plock = self._table("plock", _serial(), *(_col(name, I64) for name in owner), _col("records", BLOB))
        self._unique(self.plock, "plock", *owner)

    def _make_limits(self) -> None:
        limits = ("max_space", "max_inodes", "used_space", "used_inodes")
        self.dir_quota = self._table("dir_quota", _key("inode", I64), *(_col(name, I64) for name in limits))
        self.user_group_quota = self._table(
            "user_group_quota", _key("qtype", I32), _key("qkey", I64), *(_col(name, I64) for name in limits)
        )
        stats = ("data_length", "used_space", "used_inodes")
        self.dir_stats = self._table("dir_stats", _key("inode", I64), *(_col(name, I64) for name in stats))
        bits = ("owner", "group", "mask", "other")
        self.acl = self._table(
            "acl",
            _serial(I32),
            *(_col(name, I32, null=True) for name in bits),
            *(_col(name, BLOB, null=True) for name in ("named_users", "named_groups")),
        )
        self.delegation_token = self._table("delegation_token", _serial(I32), _col("token", BLOB, null=True))
        self.change_log = self._table("change_log", _serial(), _col("entry", TEXT))

    def _table(self, name: str, *columns: sa.Column[Any]) -> sa.Table:
        return sa.Table(
            self.prefix + name, self.metadata, *columns, sqlite_autoincrement=columns[0].name == "id", **MYSQL
        )

    def _unique(self, table: sa.Table, group: str, *columns: str) -> None:
        sa.Index(f"UQE_{table.name}_{group}", *(table.c[name] for name in columns), unique=True)

    def _index(self, table: sa.Table, column: str) -> None:
        sa.Index(f"IDX_{table.name}_{column}", table.c[column])


def _key(name: str, kind: Kind) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=True, nullable=False, autoincrement=False)


def _serial(kind: Kind = I64) -> sa.Column[Any]:
    return sa.Column("id", kind, primary_key=True, nullable=False, autoincrement=True)


def _col(name: str, kind: Kind, *, null: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=null)
