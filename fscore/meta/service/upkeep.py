"""What goes on behind the operations: heartbeat and setting, dead peers, the trash, the data of deleted files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from fscore.domain.caller import Caller
from fscore.domain.errors import FsError, StoreError
from fscore.domain.setting import META_VERSION, Setting
from fscore.meta.changelog import NANO, time_of
from fscore.meta.ops import remove
from fscore.meta.service.sweeps import Sweeps
from fscore.meta.session import LIFETIMES, OwnSession
from fscore.runtime import log

LATE: Final = 3
"""Who did not beat for so many heartbeats may share the reason with its peers, and judges nobody this time."""
MOST_TOLD: Final = 20
"""Inodes that one line of the log names."""
LOG_EVERY_S: Final = 300
LOG_WINDOW_S: Final = 270

logger = log.get(__name__)
_ROOT: Final = Caller(uid=0, gid=0)


class Upkeep(Sweeps):
    """Called by tickers, or by whoever wants it now."""

    def beat(self) -> None:
        """One heartbeat: refresh the session, follow the setting, reap peers that are gone."""
        self._reload()
        if self._stale or self._session is None:
            return
        last_s = self._session.refreshed_s
        if not self._renew(self._session):
            logger.warning("peers took session %d for dead; it is registered again", self._session.sid)
        self._hold_again(self._session.sid)
        self._repay_all()
        self._reap(last_s)
        if self.setting.change_log and self._clock.monotonic() >= self._trim_at:
            self._trim_at = self._clock.monotonic() + LOG_EVERY_S
            self.trim_log()

    def _renew(self, own: OwnSession) -> bool:
        """Refresh the session; whether it was still there. Its expiry counts from before it was stored, so the time is
        taken before.
        """
        began = self._clock.monotonic()
        with self._renewing:
            there = own.refresh()
            if not there:
                self._mourn()
        if self.options.background and self.options.heartbeat_s > 0:
            self._overdue = began + LIFETIMES * self.options.heartbeat_s
        return there

    def _mourn(self) -> None:
        """What went with the session: no lock stands any more, and files without a name are gone or loose."""
        if gone := self._claims.lose():
            inos = ", ".join(str(ino) for ino in sorted({claim[1] for claim in gone})[:MOST_TOLD])
            logger.error("locks of %d programs are lost: peers took this client for dead (inodes %s)", len(gone), inos)
        self._unheld |= set(self._opened.sustained())

    def _hold_again(self, sid: int) -> None:
        """Keep files without a name alive that a handle here still needs, as far as they are there."""
        for ino in sorted(self._unheld):
            self._cache.forget(ino)
            if not self._run(_ROOT, partial(remove.sustain_again, sid=sid, ino=ino)):
                logger.error("open inode %d, which has no name, is lost: peers took this client for dead", ino)
            self._unheld.discard(ino)

    def _catch_up(self) -> None:
        logger.warning("the heartbeat of session %s is late; registering again", self.sid)
        self.beat()
        self._check_alive()

    def _reload(self) -> None:
        stored = self.engine.load_setting()
        if stored is None:
            self._stale = "the volume is gone: its setting was removed"
            return
        setting = Setting.parse(stored)
        if setting.uuid != self.setting.uuid:
            self._stale = "another volume is in its place: its UUID changed"
        elif setting.meta_version > META_VERSION:
            self._stale = f"the volume's layout was raised to version {setting.meta_version}"
        else:
            self._stale = ""
            self._adopt(setting)

    def _reap(self, last_s: float) -> None:
        """Clean up after sessions that expired (volume-format.md 2.6); `last_s` is the own last heartbeat."""
        now_s = int(self.engine.server_time())
        beat_s = self.options.heartbeat_s
        if 0 < beat_s * LATE < now_s - last_s:
            logger.warning("the last heartbeat was %d s ago: peers that look dead get one more", now_s - last_s)
            return
        window_s = max(int(0.9 * beat_s), 1)
        if not self._claim_job("lastCleanupSessions", now_s, window_s):
            return
        for session in (*self.engine.sessions(), *self.engine.legacy_sessions()):
            if session.expires <= now_s and session.sid != self.sid:
                self._bury(session.sid, now_s)

    def _bury(self, sid: int, now_s: int) -> None:
        """What cannot be done now is left for the next client that looks; the session's record stays until then."""
        try:
            if not self._is_over(sid, now_s):
                return
            logger.info("cleaning up after session %d, which expired", sid)
            self.end_session(sid, self._leaving.is_set)
        except (FsError, StoreError) as error:
            logger.warning("session %d is not cleaned up yet: %s", sid, error)

    def _is_over(self, sid: int, now_s: int) -> bool:
        """Read again just before it ends: the ones before it may have taken long, and it may be back."""
        known = (*self.engine.sessions(), *self.engine.legacy_sessions())
        return any(session.sid == sid and session.expires <= now_s for session in known)

    def end_session(self, sid: int, stop: Callable[[], bool] = lambda: False) -> bool:
        """Destroy what a session that is over kept alive, and forget it; False when it was told to stop before: its
        record then stays, with the rest, for the next client that looks.
        """
        for ino in self.engine.sustained(sid):
            if stop():
                return False
            self._destroy_held(sid, ino)
        self.engine.drop_session(sid)
        self._append_log("CLEANSESSION(%d)", sid)
        return True

    def trim_log(self, now_ns: int | None = None) -> int:
        """Drop lines of the change log that are too old or too many (volume-format.md 2.15). Returns how many."""
        self._check_writable()
        now_ns = self._clock.now_ns() if now_ns is None else now_ns
        if not self.setting.change_log or not self._claim_job("lastCleanupChangelog", now_ns // NANO, LOG_WINDOW_S):
            return 0
        age_s, most = self.setting.change_log_max_age, self.setting.change_log_max_lines
        excess = self.engine.count_log() - most if most > 0 else 0
        oldest_ns = now_ns - age_s * NANO if age_s > 0 else 0
        dropped = last = 0
        for version, line in self.engine.scan_log():
            written_ns = time_of(line)
            if dropped >= excess and written_ns is not None and written_ns >= oldest_ns:
                break
            dropped, last = dropped + 1, version
        if dropped:
            self.engine.trim_log(last)
        return dropped

    def flush(self, *, heal: bool = True) -> None:
        """Store what this client holds back: directory statistics, usage of quotas, and what the engine gathers.

        Without `heal` negative statistics stay: their other half may still be with a peer.
        """
        self.flush_stats(heal=heal)
        self.flush_quotas()

    def flush_stats(self, *, heal: bool = True) -> None:
        """Store directory statistics, and what the engine gathers."""
        if not self.options.read_only and not self._stale:
            self._stats.flush(heal=heal)
            self.engine.flush()

    def flush_quotas(self) -> None:
        """Store the usage of quotas."""
        if not self.options.read_only and not self._stale:
            self._quotas.flush()
