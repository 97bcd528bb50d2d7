"""The name of every key and field of a volume in Redis (volume-format.md 2.2).

`P` is empty on a single server, `{db}` in a cluster, so that a volume lies in one slot. Numbers in names are decimal.

    i<ino>           string  attributes              d<ino>      hash   name -> 9 bytes: type, inode
    c<ino>_<index>   list    24-byte slice records   s<ino>      string target of a symbolic link
    x<ino>           hash    extended attributes     p<ino>      hash   parent -> links there, when Attr.parent is 0
    lockf, lockp<ino> hash   locks                   locked<sid> set    keys of the locks a session touched
    session<sid>     set     deleted, but open       sliceRef    hash   k<id>_<size> -> references - 1, absent is 0

Counters of inodes, slices and sessions hold the last number handed out, in lower case.
"""

from __future__ import annotations

import re
from typing import Final

from fscore.domain.errors import CorruptError
from fscore.domain.quota import QuotaKind
from fscore.meta.records import Counter

COUNTERS: Final = {
    Counter.INODE: b"nextinode",
    Counter.SLICE: b"nextchunk",
    Counter.SESSION: b"nextsession",
    Counter.TRASH: b"nextTrash",
}
GATES: Final = (
    "lastCleanupSessions", "lastCleanupFiles", "lastCleanupTrash", "nextCleanupSlices", "lastCleanupChangelog",
)  # fmt: skip
OTHER_COUNTERS: Final = ("usedSpace", "totalInodes", "aclMaxId", "krbTokenMaxId", *GATES)
QUOTAS: Final = {QuotaKind.DIRECTORY: b"dir", QuotaKind.USER: b"user", QuotaKind.GROUP: b"group"}
_REF: Final = re.compile(rb"k(\d+)_(\d+)")


class Keys:
    """Names of keys, with their prefix."""

    def __init__(self, prefix: bytes = b"") -> None:
        self.prefix = prefix
        self.setting = prefix + b"setting"
        self.used_space = prefix + b"usedSpace"
        self.total_inodes = prefix + b"totalInodes"
        self.slice_ref = prefix + b"sliceRef"
        self.delayed = prefix + b"delSlices"
        self.delfiles = prefix + b"delfiles"
        self.detached = prefix + b"detachedNodes"
        self.all_sessions = prefix + b"allSessions"
        self.legacy_sessions = prefix + b"sessions"
        self.session_infos = prefix + b"sessionInfos"
        self.dir_length = prefix + b"dirDataLength"
        self.dir_space = prefix + b"dirUsedSpace"
        self.dir_inodes = prefix + b"dirUsedInodes"
        self.dir_stats = (self.dir_length, self.dir_space, self.dir_inodes)
        self._quotas = {
            kind: (prefix + name + b"Quota", prefix + name + b"QuotaUsedSpace", prefix + name + b"QuotaUsedInodes")
            for kind, name in QUOTAS.items()
        }
        self.acl = prefix + b"acl"
        self.change_log = prefix + b"txnLog"
        self.last_log = prefix + b"txnLastLog"
        self._node = prefix + b"i%d"
        self._dir = prefix + b"d%d"
        self._chunk = prefix + b"c%d_%d"
        self._symlink = prefix + b"s%d"
        self._xattrs = prefix + b"x%d"
        self._parents = prefix + b"p%d"

    def node(self, ino: int) -> bytes:
        """Attributes of a node."""
        return self._node % ino

    def dir(self, ino: int) -> bytes:
        """Entries of a directory."""
        return self._dir % ino

    def chunk(self, ino: int, index: int) -> bytes:
        """Slice records of a chunk."""
        return self._chunk % (ino, index)

    def symlink(self, ino: int) -> bytes:
        """Target of a symbolic link."""
        return self._symlink % ino

    def xattrs(self, ino: int) -> bytes:
        """Extended attributes of a node."""
        return self._xattrs % ino

    def parents(self, ino: int) -> bytes:
        """Parents of a node with several names."""
        return self._parents % ino

    def parents_of_node(self, key: bytes) -> bytes:
        """Parents of the node whose attributes are under `key`."""
        return b"%bp%b" % (self.prefix, key[len(self.prefix) + 1 :])

    def held(self, sid: int) -> bytes:
        """Inodes that a session keeps alive."""
        return b"%bsession%d" % (self.prefix, sid)

    def locked(self, sid: int) -> bytes:
        """Keys of the lock hashes that a session touched; they include the prefix."""
        return b"%blocked%d" % (self.prefix, sid)

    def flock(self, ino: int) -> bytes:
        """Locks of a file as a whole."""
        return b"%blockf%d" % (self.prefix, ino)

    def plock(self, ino: int) -> bytes:
        """Locks of ranges of a file."""
        return b"%blockp%d" % (self.prefix, ino)

    def mark(self, client: bytes, place: int) -> bytes:
        """A key of our own (capital F): the number of the last transaction that a client applied there."""
        return b"%bF%b.%d" % (self.prefix, client, place)

    def quota(self, kind: QuotaKind) -> tuple[bytes, bytes, bytes]:
        """Limits, used space and used inodes of directories, users or groups."""
        return self._quotas[kind]

    def counter(self, counter: Counter) -> bytes:
        """A counter that hands out numbers."""
        return self.prefix + COUNTERS[counter]

    def named(self, name: str) -> bytes:
        """A counter or job gate whose key is its SQL name."""
        return self.prefix + name.encode()

    def numbers_in(self, key: bytes, letter: bytes) -> tuple[int, ...] | None:
        """The numbers of a key `<letter><n>[_<m>]`, or None when the key is something else."""
        text = key[len(self.prefix) + len(letter) :]
        parts = text.split(b"_")
        return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else None


def ref_field(slice_id: int, size: int) -> bytes:
    """Field of `sliceRef` for a slice."""
    return b"k%d_%d" % (slice_id, size)


def parse_ref(field: bytes) -> tuple[int, int] | None:
    """(slice id, size) of a field of `sliceRef`; None for a name that is none."""
    match = _REF.fullmatch(field)
    return None if match is None else (int(match[1]), int(match[2]))


def delfile_member(ino: int, length: int) -> bytes:
    """Member of `delfiles`."""
    return b"%d:%d" % (ino, length)


def parse_delfile(member: bytes) -> tuple[int, int] | None:
    """(inode, length) of a member of `delfiles`; None for the members of releases before 1.0."""
    parts = member.split(b":")
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 else None


def delayed_field(new_id: int, at_s: int) -> bytes:
    """Field of `delSlices`."""
    return b"%d_%d" % (new_id, at_s)


def parse_delayed(field: bytes) -> tuple[int, int]:
    """(id of the new slice, unix seconds) of a field of `delSlices`."""
    new_id, _, at_s = field.partition(b"_")
    try:
        return int(new_id), int(at_s)
    except ValueError:
        raise CorruptError(f"delSlices has the field {field!r}") from None


def lock_field(sid: int, owner: int) -> bytes:
    """Field of a lock hash: the session and the owner in hexadecimal."""
    return b"%d_%016X" % (sid, owner)


def parse_lock_field(field: bytes) -> tuple[int, int]:
    """(session, owner) of a field of a lock hash."""
    sid, _, owner = field.partition(b"_")
    try:
        return int(sid), int(owner, 16)
    except ValueError:
        raise CorruptError(f"a lock has the field {field!r}") from None
