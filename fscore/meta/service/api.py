"""The metadata of one volume, open in this process: format, open, close, and every operation of the parts below."""

from __future__ import annotations

import secrets
from typing import Final, Self, Unpack

from fscore.domain.attr import DIRECTORY_LENGTH, Attr, Kind
from fscore.domain.errors import SettingError
from fscore.domain.ids import ROOT, TRASH
from fscore.domain.secrets import NONCE
from fscore.domain.setting import Setting, check_client
from fscore.meta.engine import MetaEngine
from fscore.meta.ops.work import Rules
from fscore.meta.records import Counter
from fscore.meta.service.core import MetaOptions, OptionChanges
from fscore.meta.service.quotas import QuotaAdmin
from fscore.meta.session import OwnSession, client_version, describe
from fscore.runtime import log
from fscore.runtime.clock import Clock, SystemClock
from fscore.runtime.threads import Ticker

logger = log.get(__name__)

FLUSH_S: Final = 1.0
QUOTA_TICKS: Final = 3
"""Usage of quotas is flushed at every third flush of statistics (volume-format.md 2.10)."""


class MetaService(QuotaAdmin):
    """See `fscore.meta.service`. Thread-safe. Close it: the last statistics and the session go with it."""

    def __init__(self, engine: MetaEngine, clock: Clock, setting: Setting, options: MetaOptions) -> None:
        super().__init__(engine, clock, setting, options)
        self._tickers: list[Ticker] = []
        self._closed = False
        self._ticks = 0

    @staticmethod
    def format(engine: MetaEngine, setting: Setting, clock: Clock | None = None) -> Setting:
        """Write a new volume: setting, root, and the trash when it keeps days. Returns the setting as stored.

        Raises SettingError when the engine holds a volume already.
        """
        now_ns = (clock or SystemClock()).now_ns()
        stored = setting.with_wrapped_secrets(lambda: secrets.token_bytes(NONCE))
        nodes = {int(ROOT): _new_root(now_ns, 0o777)}
        if setting.trash_days > 0:
            nodes[int(TRASH)] = _new_root(now_ns, 0o555)
        engine.init_volume(stored.render(), nodes)
        return stored

    @classmethod
    def open(cls, engine: MetaEngine, clock: Clock | None = None, **changes: Unpack[OptionChanges]) -> MetaService:
        """Become a client of the volume in `engine`, which is closed with it.

        Raises SettingError when there is no volume, or when this client must not open it (to write, unless
        `read_only`). Registers a session unless `read_only` or without `session`.
        """
        options = MetaOptions(**changes)
        clock = clock or SystemClock()
        stored = engine.load_setting()
        if stored is None:
            raise SettingError(f"there is no volume in {engine.location}: format one first")
        setting = Setting.parse(stored)
        _check_client(engine, setting, options)
        service = cls(engine, clock, setting, options)
        service._begin()
        return service

    def _begin(self) -> None:
        options = self.options
        if options.session and not options.read_only:
            info = describe(self._clock, options.version or client_version(), options.place)
            self._register(info)
        self._adopt(self.setting)
        writes = not (options.read_only or options.setting_only)
        if writes and self.setting.dir_stats and self.engine.dir_stat(ROOT) is None:
            self._stats.recount(ROOT)  # now, while no peer has changes of it to flush
        if not options.background:
            return
        if options.heartbeat_s > 0:
            self._tickers.append(Ticker("meta-heartbeat", options.heartbeat_s, self.beat))
        if not options.read_only:
            self._tickers.append(Ticker("meta-flush", FLUSH_S, self._tick))

    def _register(self, info: bytes) -> None:
        """Become a session; whoever keeps a change log is told by its first lines."""
        if self.setting.change_log:
            self._rules = Rules(log=self._log)
        sid = self._take_numbers(Counter.SESSION, 1)[0]
        self._log.sid = sid
        self._session = OwnSession(self.engine, sid, self.options.heartbeat_s, info)
        self._renew(self._session)
        self._append_log("NEWSESSION(%d,%d,%s)", sid, self._session.expires, info)

    def _tick(self) -> None:
        self._ticks += 1
        self.flush_stats()
        if self._ticks % QUOTA_TICKS == 0:
            self.flush_quotas()

    def close(self) -> None:
        """Flush, end the session, close the engine. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.leaving()
        for ticker in self._tickers:
            ticker.stop()
        try:
            if not self._stale:
                self._end()
        finally:
            self.engine.close()

    def _end(self) -> None:
        if self._session is not None:
            self._end_own(self._session)
        if not self.read_only:
            self.flush()
            try:
                self.purge_deleted()
            finally:
                self.flush(heal=False)
            if not self.engine.sessions():
                self._stats.settle()

    def _end_own(self, own: OwnSession) -> None:
        """What only lived for this client goes, as far as that is done in `LEAVE_S`; then its session with its locks.
        What is left is left with the session, which has expired: the next client that looks goes on.
        """
        began = self._clock.monotonic()
        self._opened.close_all()
        if not self.end_session(own.sid, lambda: self._out_of_time(began)):
            logger.warning("session %d leaves deleted files that were open to its peers", own.sid)
            self._repay_all()
            own.expire()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _new_root(now_ns: int, mode: int) -> Attr:
    return Attr(
        kind=Kind.DIRECTORY,
        mode=mode,
        atime_ns=now_ns,
        mtime_ns=now_ns,
        ctime_ns=now_ns,
        nlink=2,
        length=DIRECTORY_LENGTH,
        parent=ROOT,
    )


def _check_client(engine: MetaEngine, setting: Setting, options: MetaOptions) -> None:
    reading = options.read_only or options.setting_only
    reasons = check_client(setting, reading, metadata_only=options.metadata_only)
    if not options.read_only:
        old = engine.legacy_sessions()
        now_s = engine.server_time() if old else 0.0
        reasons += ["a client older than 1.0 is connected to it" for session in old if session.expires > now_s][:1]
    if not reasons:
        return
    readable = options.read_only or check_client(setting, True, metadata_only=options.metadata_only)
    way = "" if readable else " (open it read-only)"
    raise SettingError(f"this client must not open volume {setting.name!r}: {'; '.join(reasons)}{way}")
