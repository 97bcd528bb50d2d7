"""Numbers and layouts of the FUSE protocol (7.12 to 7.45), as the kernel's uapi header linux/fuse.h has them. Pure.

Everything is in the machine's byte order and without padding but what is named.
"""

from __future__ import annotations

import enum
from struct import Struct
from typing import Final

MAJOR: Final = 7
MINOR: Final = 45
OLDEST_MINOR: Final = 12

HEADER: Final = Struct("=IIQQIIIHH")
"""in_header: length, opcode, unique, node, uid, gid, pid, length of extensions / 8, padding."""
BODY: Final = HEADER.size
OUT: Final = Struct("=IiQ")
"""out_header: length, minus errno (or a notice's code), unique."""

GETATTR_IN: Final = Struct("=IIQ")
SETATTR_IN: Final = Struct("=IIQQQQqqIIIIIIII")
MKNOD_IN: Final = Struct("=IIII")
MKDIR_IN: Final = Struct("=II")
RENAME_IN: Final = Struct("=Q")
RENAME2_IN: Final = Struct("=QII")
LINK_IN: Final = Struct("=Q")
OPEN_IN: Final = Struct("=II")
CREATE_IN: Final = Struct("=IIII")
RELEASE_IN: Final = Struct("=QIIQ")
FLUSH_IN: Final = Struct("=QIIQ")
READ_IN: Final = Struct("=QQIIQII")
WRITE_IN: Final = Struct("=QQIIQII")
FSYNC_IN: Final = Struct("=QII")
SETXATTR_IN: Final = Struct("=II")
GETXATTR_IN: Final = Struct("=II")
LK_IN: Final = Struct("=QQQQIIII")
ACCESS_IN: Final = Struct("=II")
INIT_IN: Final = Struct("=IIII")
INIT_FLAGS2: Final = Struct("=I")
INTERRUPT_IN: Final = Struct("=Q")
FORGET_IN: Final = Struct("=Q")
BATCH_FORGET_IN: Final = Struct("=II")
FORGET_ONE: Final = Struct("=QQ")
FALLOCATE_IN: Final = Struct("=QQQII")
LSEEK_IN: Final = Struct("=QQII")
COPY_IN: Final = Struct("=QQQQQQQ")

_ATTR: Final = "QQQqqqIIIIIIIIII"
_ENTRY: Final = "QQQQII" + _ATTR
ATTR_REPLY: Final = Struct("=IiQ" + "QII" + _ATTR)
ENTRY_REPLY: Final = Struct("=IiQ" + _ENTRY)
CREATE_REPLY: Final = Struct("=IiQ" + _ENTRY + "QIi")
OPEN_REPLY: Final = Struct("=IiQ" + "QIi")
WRITE_REPLY: Final = Struct("=IiQ" + "II")
U64_REPLY: Final = Struct("=IiQ" + "Q")
SIZE_REPLY: Final = Struct("=IiQ" + "II")
LK_REPLY: Final = Struct("=IiQ" + "QQII")
STATFS_REPLY: Final = Struct("=IiQ" + "QQQQQIIII24x")
INIT_REPLY: Final = Struct("=IiQ" + "IIIIHHIIHHIIH22x")
DIRENT: Final = Struct("=QQII")
DIRENTPLUS: Final = Struct("=" + _ENTRY + "QQII")
INVAL_INODE: Final = Struct("=IiQ" + "Qqq")
INVAL_ENTRY: Final = Struct("=IiQ" + "QII")

NOTIFY_INVAL_INODE: Final = 2
NOTIFY_INVAL_ENTRY: Final = 3

BLOCK_SIZE: Final = 65536
"""st_blksize, as the official client gives it: programs size their buffers by it."""
GENERATION: Final = 1
"""Inode numbers of a volume are never used again."""
NANO: Final = 1_000_000_000


class Opcode(enum.IntEnum):
    """Requests that the kernel may send."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


class Init(enum.IntFlag):
    """Flags of INIT; those from bit 32 on travel in `flags2`."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    FLOCK_LOCKS = 1 << 10
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    PARALLEL_DIROPS = 1 << 18
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    HANDLE_KILLPRIV_V2 = 1 << 28
    INIT_EXT = 1 << 30
    DIRECT_IO_ALLOW_MMAP = 1 << 36
    PASSTHROUGH = 1 << 37


class Set(enum.IntFlag):
    """Bits of `valid` in SETATTR."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    KILL_SUIDGID = 1 << 11


class Fopen(enum.IntFlag):
    """Flags of the answer to OPEN, CREATE and OPENDIR."""

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    CACHE_DIR = 1 << 3
    NOFLUSH = 1 << 5
    PASSTHROUGH = 1 << 7


GETATTR_FH: Final = 1
WRITE_KILL_SUIDGID: Final = 1 << 2
RELEASE_FLOCK_UNLOCK: Final = 1 << 1
LK_FLOCK: Final = 1
FSYNC_DATA_ONLY: Final = 1

FORGET_OPCODES: Final = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT})
"""Requests that get no answer."""
