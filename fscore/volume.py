"""The composition root: from a META-URL or a name to an open volume. Only this module knows every concrete class."""

from __future__ import annotations

import os
import re
import threading
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Self, TypedDict, Unpack

import msgspec

from fscore.blocks.cache.api import BlockCache
from fscore.blocks.cache.tiers import open_cache
from fscore.blocks.cache.whole.cache import WholeCache
from fscore.blocks.store import BlockStore
from fscore.domain.caller import Caller
from fscore.domain.connection import parse_connection
from fscore.domain.errors import SettingError
from fscore.domain.setting import Setting
from fscore.files.filesystem import Filesystem
from fscore.meta.engine import MetaEngine
from fscore.meta.engines.registry import open_engine
from fscore.meta.service import AtimeMode, MetaService
from fscore.objects.api import Durable, ObjectStore
from fscore.objects.registry import open_store
from fscore.objects.wrap.checksum import Checksummed
from fscore.objects.wrap.limit import Limited
from fscore.objects.wrap.meter import Metered
from fscore.objects.wrap.prefixed import Prefixed
from fscore.objects.wrap.retry import Retrying
from fscore.runtime.clock import Clock, SystemClock
from fscore.runtime.limiter import Limiter
from fscore.runtime.metrics import Metrics
from fscore.runtime.retry import Retry
from fscore.vfs.collector import Collected
from fscore.vfs.compaction import Thresholds
from fscore.vfs.options import VfsOptions
from fscore.vfs.vfs import Vfs

VOLUMES_ENV: Final = "FSCORE_VOLUMES"
CACHE_ENV: Final = "FSCORE_CACHE_DIR"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PASSWORD: Final = re.compile(r"(://[^/@:]*:)[^@]*@")
MEGABIT: Final = 125_000
"""Bytes in what a setting's limits are counted in."""
_CHECKSUMMED: Final = frozenset({"s3", "minio"})


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one process asks of a volume; never stored in it. Sizes are bytes, rates bytes a second, 0 = no limit."""

    read_only: bool = False
    session: bool = True
    """Whether to register as a client. Without a session a file that is deleted while open here is gone at once."""
    caller: Caller | None = None
    cache_dir: str | None = None
    """Where blocks are kept on this machine; None: where `FSCORE_CACHE_DIR` says; empty: in memory only."""
    cache_size: int = 100 << 30
    free_space_ratio: float = 0.1
    memory_cache: int = 128 << 20
    buffer_size: int = 300 << 20
    """What was written and is not stored yet, in writers and on its way up together. Beyond that writers wait."""
    read_ahead: int = 64 << 20
    upload_threads: int = 8
    fetch_threads: int = 16
    upload_limit: int = 0
    download_limit: int = 0
    attempts: int = 14
    place: str = "fscore"
    """What other clients see as this one's place: a mount tells its directory."""
    bucket: str | None = None
    """Where the objects are for this process, when that is not where the setting says."""
    whole: Literal["off", "auto", "immutable", "all"] = "off"
    """Which files the cache directory keeps whole, for the kernel to read by itself. `auto`: immutable ones, and none
    of an encrypted volume, for a whole file is plain bytes."""
    heartbeat_s: float = 12.0
    cache_s: float = 1.0
    """How long entries and attributes that this process saw are believed; peers' changes show that much later."""
    atime_mode: AtimeMode = "noatime"
    """Whether reading moves the access time: never, when it is older than the last change or a day, or every second."""
    background: bool = True
    durable: Durable = True
    """When what a `file` store takes survives a power cut: at once; `fsync`, at the next fsync or within five seconds,
    as on a local disk; False, when the system likes."""
    patience_s: tuple[float, ...] = VfsOptions().patience_s
    compact: Thresholds = Thresholds()
    """From how many slice records on a chunk is compacted in the background; 0 = never."""


class OptionChanges(TypedDict, total=False):
    """Fields of Options, as keyword arguments of `open_volume`."""

    read_only: bool
    session: bool
    caller: Caller | None
    cache_dir: str | None
    cache_size: int
    free_space_ratio: float
    memory_cache: int
    buffer_size: int
    read_ahead: int
    upload_threads: int
    fetch_threads: int
    upload_limit: int
    download_limit: int
    attempts: int
    place: str
    bucket: str | None
    whole: Literal["off", "auto", "immutable", "all"]
    heartbeat_s: float
    cache_s: float
    atime_mode: AtimeMode
    background: bool
    durable: Durable
    patience_s: tuple[float, ...]
    compact: Thresholds


class Volume:
    """One open filesystem. Close it, or use it as a context manager; `files` is the way in."""

    def __init__(self, url: str, meta: MetaService, blocks: BlockStore, vfs: Vfs, options: Options) -> None:
        self.url: Final = url
        self.meta: Final = meta
        self.blocks: Final = blocks
        self.objects: Final = blocks.objects
        self.vfs: Final = vfs
        self.options: Final = options
        self.files: Final = self.as_caller(options.caller or _own_identity())
        self._closed = False

    @property
    def setting(self) -> Setting:
        """The volume's stored descriptor, secrets as they are stored."""
        return self.meta.setting

    @property
    def name(self) -> str:
        """The volume's name."""
        return self.meta.setting.name

    @property
    def metrics(self) -> Metrics:
        """Counters of this process's use of the volume."""
        return self.blocks.metrics

    def as_caller(self, caller: Caller) -> Filesystem:
        """The tree as somebody else sees it."""
        return Filesystem(self.meta, self.vfs, caller)

    def collect(self) -> Collected:
        """Delete now what nobody refers to any more."""
        return self.vfs.collect()

    def sync(self) -> None:
        """Make everything written durable."""
        self.vfs.sync()

    def close(self) -> None:
        """Commit what is written, end the session, join every thread. Idempotent; raises the first error at the end."""
        if self._closed:
            return
        self._closed = True
        self.closer()()

    def closer(self) -> Callable[[], None]:
        """What `close` does, as a function that does not keep the volume alive (for finalizers)."""
        return partial(_close_all, (self.vfs.close, self.meta.close, self.blocks.close, self.blocks.close_stores))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_volume(
    target: str,
    *,
    object_store: ObjectStore | None = None,
    meta_engine: MetaEngine | None = None,
    clock: Clock | None = None,
    options: Options | None = None,
    **changes: Unpack[OptionChanges],
) -> Volume:
    """Open the volume behind a META-URL, or the one that `volumes.toml` calls `target`.

    What `volumes.toml` calls read-only is never opened to be written. `object_store` stands in for the store that the
    setting names, `meta_engine` for the engine of the URL. Raises
    SettingError, in one line, for what cannot be a volume or must not be opened by this client, UnavailableError when
    a server does not answer.
    """
    url, listed = locate(target)
    try:
        chosen = msgspec.convert(msgspec.structs.asdict(options or Options()) | listed | dict(changes), Options)
    except msgspec.ValidationError as error:
        raise SettingError(f"an option of {target!r}: {error}") from error
    if listed.get("read_only"):
        chosen = msgspec.structs.replace(chosen, read_only=True)
    clock = clock or SystemClock()
    engine = meta_engine or open_engine(url)
    try:
        meta = MetaService.open(
            engine,
            clock,
            read_only=chosen.read_only,
            session=chosen.session,
            place=chosen.place,
            heartbeat_s=chosen.heartbeat_s,
            cache_s=chosen.cache_s,
            atime_mode=chosen.atime_mode,
            background=chosen.background,
        )
    except BaseException:
        engine.close()
        raise
    try:
        return _assemble(url, meta, object_store, clock, chosen)
    except BaseException:
        meta.close()
        raise


def locate(target: str) -> tuple[str, dict[str, Any]]:
    """(META-URL, options of `volumes.toml`) for what a user typed. Raises SettingError for an unknown name."""
    if "://" in target:
        return target, {}
    if not _NAME.fullmatch(target) or _looks_like_address(target):
        return f"redis://{target}", {}  # as JuiceFS takes an address without a scheme
    entry = dict(_volumes().get(target) or _connection(target))
    url = entry.pop("meta", None)
    if not isinstance(url, str):
        known = ", ".join(sorted(_volumes())) or "none"
        raise SettingError(f"{target!r} is no META-URL and no name in {volumes_file()} (which has: {known})")
    return url, entry


def volumes_file() -> Path:
    """Where names of volumes are kept: `FSCORE_VOLUMES`, else `~/.config/fscore/volumes.toml`."""
    named = os.environ.get(VOLUMES_ENV)
    return Path(named) if named else Path.home() / ".config" / "fscore" / "volumes.toml"


def volume_names() -> dict[str, str]:
    """The names in `volumes.toml` with their META-URLs, passwords hidden."""
    return {name: _PASSWORD.sub(r"\1***@", str(table.get("meta", ""))) for name, table in sorted(_volumes().items())}


def _close_all(closes: Sequence[Callable[[], None]]) -> None:
    first: Exception | None = None
    for close in closes:
        try:
            close()
        except Exception as error:  # noqa: BLE001  the other parts are closed all the same; raised below
            first = first or error
    if first is not None:
        raise first


def _connection(name: str) -> dict[str, Any]:
    """What Airflow's environment says about a connection of that name: a task's shell knows the names of its DAG."""
    text = os.environ.get(f"AIRFLOW_CONN_{name.upper()}")
    return parse_connection(name, text) if text else {}


def _looks_like_address(target: str) -> bool:
    return bool(re.fullmatch(r"\d+\.\d+\.\d+\.\d+", target))


def _volumes() -> Mapping[str, dict[str, Any]]:
    path = volumes_file()
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingError(f"{path}: {error}") from error
    return {name: table for name, table in found.items() if isinstance(table, dict)}


def _own_identity() -> Caller:
    return Caller(uid=os.getuid(), gid=os.getgid(), gids=tuple(os.getgroups()), pid=os.getpid())


def _assemble(url: str, meta: MetaService, override: ObjectStore | None, clock: Clock, options: Options) -> Volume:
    """The wrappers and caches of a volume, stacked where all can see it."""
    setting = meta.setting.with_plain_secrets()
    metrics = Metrics()
    rates = (Limiter(0, clock=clock), Limiter(0, clock=clock))
    meta.follow(partial(_limit, rates, options))
    leaving = threading.Event()
    stacked = partial(stack_store, setting, override, clock, options, metrics, rates=rates, leaving=leaving)
    cache, whole = _caches(setting, options, clock, metrics)
    blocks = BlockStore(
        stacked(),
        block_size=setting.block_size,
        compression=setting.compression,
        hash_prefix=setting.hash_prefix,
        cache=cache,
        upload_threads=options.upload_threads,
        fetch_threads=options.fetch_threads,
        buffer_bytes=options.buffer_size,
        metrics=metrics,
        tiers={number: stacked(tier=number) for number in setting.tier_numbers if number},
        leaving=leaving,
    )
    vfs_options = VfsOptions(
        read_only=options.read_only,
        read_ahead=options.read_ahead,
        patience_s=options.patience_s,
        attr_ttl_s=options.cache_s,
        background=options.background,
        compact=options.compact,
        whole="immutable" if options.whole == "auto" else options.whole,
    )
    return Volume(url, meta, blocks, Vfs(meta, blocks, clock, vfs_options, whole), options)


def _limit(rates: tuple[Limiter, Limiter], options: Options, setting: Setting) -> None:
    """What this process was told, else what the setting says by now."""
    rates[0].change(options.upload_limit or setting.upload_limit * MEGABIT)
    rates[1].change(options.download_limit or setting.download_limit * MEGABIT)


def stack_store(
    setting: Setting,
    override: ObjectStore | None,
    clock: Clock,
    options: Options,
    metrics: Metrics,
    *,
    rates: tuple[Limiter, Limiter] | None = None,
    tier: int = 0,
    leaving: threading.Event | None = None,
) -> ObjectStore:
    """The volume's object store: driver, checksum, limits, retries, meter, seal, and the name before every key.

    What is put gets the storage class of the tier. `rates` limit the bytes up and down, here and in other stacks;
    once `leaving` is set nothing is tried again.
    """
    storage_class, tag = setting.tier(tier)
    store = override or open_store(
        setting.storage,
        options.bucket or setting.bucket,
        access_key=setting.access_key,
        secret_key=setting.secret_key,
        session_token=setting.session_token,
        shards=setting.shards,
        durable=options.durable,
        storage_class=storage_class,
        tag=tag,
    )
    if setting.storage in _CHECKSUMMED and override is None:
        store = Checksummed(store)
    if rates is not None:
        store = Limited(store, upload=rates[0], download=rates[1], clock=clock)
    store = Metered(Retrying(store, Retry(attempts=options.attempts, clock=clock, leaving=leaving)), metrics)
    if setting.encrypt_key:
        from fscore.objects.wrap.encrypt import Encrypted, Sealer

        store = Encrypted(store, Sealer(setting.encrypt_key, setting.encrypt_algo))
    return Prefixed(store, f"{setting.name}/")


def _caches(setting: Setting, options: Options, clock: Clock, metrics: Metrics) -> tuple[BlockCache, WholeCache | None]:
    """The cache of blocks, and the one of whole files where they are wanted: on one disk, of one budget."""
    cache, disk = open_cache(
        os.environ.get(CACHE_ENV) if options.cache_dir is None else options.cache_dir,
        setting.uuid,
        cache_size=options.cache_size,
        memory_size=options.memory_cache,
        free_space_ratio=options.free_space_ratio,
        metrics=metrics,
    )
    if disk is None or options.whole == "off" or (options.whole == "auto" and setting.encrypt_key):
        return cache, None
    return cache, WholeCache(disk.home, disk.shelf, threads=options.fetch_threads, clock=clock, metrics=metrics)
