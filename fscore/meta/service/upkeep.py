"""What goes on behind the operations: heartbeat and setting, dead peers, the trash, the data of deleted files."""

from __future__ import annotations

import datetime as dt
from typing import Final

from fscore.domain.caller import Caller
from fscore.domain.geometry import chunk_count
from fscore.domain.ids import TRASH
from fscore.domain.setting import META_VERSION, Setting
from fscore.meta.changelog import NANO, time_of
from fscore.meta.ops import remove
from fscore.meta.service.clones import Clones
from fscore.meta.session import LIFETIMES
from fscore.runtime import log

HOUR_S: Final = 3600
LOG_EVERY_S: Final = 300
LOG_WINDOW_S: Final = 270
GATE_WINDOW_S: Final = 3240
"""How long a job's run keeps every other client from running it (volume-format.md 2.9 job gates)."""
PROBE: Final = 64
"""Chunks past the end looked at in one go: a file that was longer once left lists there."""

logger = log.get(__name__)
_ROOT: Final = Caller(uid=0, gid=0)


class Upkeep(Clones):
    """Called by tickers, or by whoever wants it now."""

    def beat(self) -> None:
        """One heartbeat: refresh the session, follow the setting, reap peers that are gone."""
        self._reload()
        if self._stale or self._session is None:
            return
        self._session.refresh()
        if self.options.background and self.options.heartbeat_s > 0:
            self._overdue = self._clock.monotonic() + LIFETIMES * self.options.heartbeat_s
        self._reap()
        if self.setting.change_log and self._clock.monotonic() >= self._trim_at:
            self._trim_at = self._clock.monotonic() + LOG_EVERY_S
            self.trim_log()

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

    def _reap(self) -> None:
        """Clean up after sessions that expired (volume-format.md 2.6)."""
        now_s = int(self.engine.server_time())
        window_s = max(int(0.9 * self.options.heartbeat_s), 1)
        if not self._claim_job("lastCleanupSessions", now_s, window_s):
            return
        for session in self.engine.sessions():
            if session.expires <= now_s and session.sid != self.sid:
                logger.info("cleaning up after session %d, which expired", session.sid)
                self.end_session(session.sid)

    def end_session(self, sid: int) -> None:
        """Destroy what a session that is over kept alive, and forget it."""
        for ino in self.engine.sustained(sid):
            self._destroy_held(sid, ino)
        self.engine.drop_session(sid)
        self._append_log("CLEANSESSION(%d)", sid)

    def dead(self, limit: int = 1000) -> list[tuple[int, int]]:
        """(slice id, size) of slices that nobody refers to; their objects are to be deleted, then `forget`."""
        self._check_writable()
        return self.engine.take_dead(limit)

    def forget(self, slices: list[tuple[int, int]]) -> None:
        """The objects of these slices are gone."""
        self.engine.forget_dead(slices)
        if self._rules.log is not None:
            for pair in slices:
                self._append_log("DELETESLICE(%d,%d)", *pair)

    def purge_deleted(self, now_ns: int | None = None) -> int:
        """Drop the slices of deleted files: this client's at once, others' after an hour. Returns the files."""
        self._check_writable()
        now_s = (self._clock.now_ns() if now_ns is None else now_ns) // 1_000_000_000
        with self._lock:
            doomed, self._doomed = self._doomed, []
        if self._claim_job("lastCleanupFiles", now_s, GATE_WINDOW_S):
            doomed += self.engine.delfiles(now_s - HOUR_S)
        done = 0
        for ino, length in dict.fromkeys(doomed):
            self._drop_data(ino, length)
            self.engine.forget_delfile(ino, length)
            done += 1
        return done

    def _drop_data(self, ino: int, length: int) -> None:
        stop = chunk_count(length)
        with self.engine.view() as view:
            indexes = view.chunk_indexes(ino, 0, stop) if stop else []
        for index in indexes:
            self._drop_chunk(ino, index)
        while True:
            with self.engine.view() as view:
                indexes = view.chunk_indexes(ino, stop, stop + PROBE)
            if not indexes:
                return
            for index in indexes:
                self._drop_chunk(ino, index)
            stop += PROBE

    def _drop_chunk(self, ino: int, index: int) -> None:
        self._run(_ROOT, lambda work: remove.drop_chunk(work, ino, index))

    def purge_delayed(self, now_ns: int | None = None) -> int:
        """Let go what compaction parked, once it is older than the trash keeps things. Returns the parked lists."""
        self._check_writable()
        now_s = (self._clock.now_ns() if now_ns is None else now_ns) // 1_000_000_000
        if not self._claim_job("nextCleanupSlices", now_s, GATE_WINDOW_S):
            return 0
        done = 0
        for new_id, at_s, _ in self.engine.delayed(now_s - 86400 * self.setting.trash_days):
            self.engine.forget_delayed(new_id, at_s)
            self._append_log("CLEANUP_DELAYED_SLICES(%d,%d)", new_id, at_s)
            done += 1
        return done

    def purge_trash(self, now_ns: int | None = None) -> int:
        """Empty the hour directories that are older than the volume's trash days and remove them. Returns the hours."""
        self._check_writable()
        now_s = (self._clock.now_ns() if now_ns is None else now_ns) // 1_000_000_000
        if self.setting.trash_days <= 0 and not self._has_trash():
            return 0
        if not self._claim_job("lastCleanupTrash", now_s, GATE_WINDOW_S):
            return 0
        limit = dt.datetime.fromtimestamp(now_s, dt.UTC) - dt.timedelta(hours=24 * self.setting.trash_days + 2)
        oldest = f"{limit:%Y-%m-%d-%H}".encode()
        hours = [entry for entry in self._entries(TRASH, attrs=False) if _is_hour(entry.name)]
        purged = 0
        for hour in sorted(hours, key=lambda entry: entry.ino):
            if hour.name < oldest:
                self.remove_tree(TRASH, hour.name, hour.ino)
                purged += 1
        return purged

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

    def _has_trash(self) -> bool:
        with self.engine.view() as view:
            return view.has_entries(TRASH)

    def flush(self) -> None:
        """Store what this client holds back: directory statistics, usage of quotas, and what the engine gathers."""
        self.flush_stats()
        self.flush_quotas()

    def flush_stats(self) -> None:
        """Store directory statistics, and what the engine gathers."""
        if not self.options.read_only and not self._stale:
            self._stats.flush()
            self.engine.flush()

    def flush_quotas(self) -> None:
        """Store the usage of quotas."""
        if not self.options.read_only and not self._stale:
            self._quotas.flush()


def _is_hour(name: bytes) -> bool:
    return len(name) == 13 and name.count(b"-") == 3 and name.replace(b"-", b"").isdigit()
