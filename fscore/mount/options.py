"""What one mount was told, with the names and defaults that JuiceFS users know where it has them."""

from __future__ import annotations

import msgspec


class MountOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes are bytes, times seconds. How blocks are cached and buffered is `volume.Options`' affair."""

    read_only: bool = False
    subdir: str = ""
    """The directory of the volume that is the mount's root; empty for the volume's own."""
    allow_other: bool = False
    allow_root: bool = False
    default_permissions: bool = True
    """The kernel checks mode bits itself, before it asks."""
    enable_xattr: bool = False
    """Off as in JuiceFS: every `ls -l` and many a write would ask for attributes that few files have. A volume with
    ACLs has them on."""
    attr_cache_s: float = 1.0
    entry_cache_s: float = 1.0
    dir_entry_cache_s: float = 1.0
    negative_entry_cache_s: float = 0.0
    readdir_plus: bool = True
    passthrough: bool = True
    max_stack_depth: int = 1
    """2 where the cache of whole files lies on an overlay filesystem."""
    max_write: int = 1 << 20
    max_read_ahead: int = 1 << 20
    max_background: int = 128
    max_workers: int = 64
    """Requests that may wait for the volume at the same time."""
    fsname: str = ""
    """What `df` and /proc/mounts show as the source."""
    fuse_options: tuple[str, ...] = ()
    """Further words of `-o`, handed to the kernel or to fusermount3 as they are."""
