"""Quotas set, shown, checked and deleted, and changes of the volume's setting (volume-format.md 1, 2.10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

from msgspec.structs import replace

from fscore.domain.attr import Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import NotADir, NotFound, NotPermitted, SettingError
from fscore.domain.ids import in_trash
from fscore.domain.quota import Load, Quota, QuotaKey, QuotaKind
from fscore.domain.setting import Setting
from fscore.meta.ops import quota
from fscore.meta.quotas import weigh, weigh_owners
from fscore.meta.service.upkeep import Upkeep

_ROOT: Final = Caller(uid=0, gid=0)


class QuotaFinding(NamedTuple):
    """What a check found: the record (None: it is missing) and what a count says."""

    quota: Quota | None
    counted: Load

    @property
    def consistent(self) -> bool:
        """Whether the record says what was counted; nothing counted needs no record."""
        quota = self.quota or Quota()
        return (quota.used_space, quota.used_inodes) == self.counted


class QuotaAdmin(Upkeep):
    """For administrators: nobody's permission is asked."""

    def set_quota(
        self, kind: QuotaKind, number: int, *, max_space: int | None = None, max_inodes: int | None = None
    ) -> Quota:
        """Set limits, None keeps one and 0 is none; what is used already is counted when the quota is new.

        A directory's quota turns on the statistics of directories, a user's or group's the counting by owner.
        Other clients learn of a new quota at their next heartbeat; what they change until then is not counted.
        """
        self._check_writable()
        key = QuotaKey(kind, number)
        if kind is QuotaKind.DIRECTORY:
            self._check_directory(number)
            self.amend(lambda setting: replace(setting, dir_stats=True))
        counting = self.setting.user_group_quota
        if kind is not QuotaKind.DIRECTORY:
            self.amend(lambda setting: replace(setting, user_group_quota=True), count=False)
        self.flush()
        created = self._run(_ROOT, lambda work: quota.limit(work, key, max_space, max_inodes))
        self._adopt(self.setting)
        if created and kind is QuotaKind.DIRECTORY:
            self._put_usage({key: weigh(self.engine, number)})
        if kind is not QuotaKind.DIRECTORY and not counting:
            self._put_usage(weigh_owners(self.engine))
        found = self.quota(kind, number)
        assert found is not None
        return found

    def quota(self, kind: QuotaKind, number: int) -> Quota | None:
        """A quota as stored, after a flush; None when there is none."""
        self.flush()
        key = QuotaKey(kind, number)
        with self.engine.view() as view:
            return view.quotas([key]).get(key)

    def quotas(self, *kinds: QuotaKind) -> dict[QuotaKey, Quota]:
        """Every quota with a limit, of these kinds or of all, as stored after a flush."""
        self.flush()
        found = self.engine.load_quotas(*(kinds or tuple(QuotaKind)))
        return {key: quota for key, quota in sorted(found.items()) if quota.limits}

    def delete_quota(self, kind: QuotaKind, number: int) -> None:
        """Remove a directory's quota; a user's or group's loses its limits and goes on counting."""
        self._check_writable()
        self._run(_ROOT, lambda work: quota.delete(work, QuotaKey(kind, number)))
        self._adopt(self.setting)

    def check_quota(self, kind: QuotaKind, number: int, *, repair: bool = False) -> QuotaFinding:
        """Compare a quota's usage with a count, and with `repair` set it to that. NotFound when there is none."""
        return self._check_quotas([QuotaKey(kind, number)], repair=repair)[QuotaKey(kind, number)]

    def check_owners(self, *, repair: bool = False) -> dict[QuotaKey, QuotaFinding]:
        """As `check_quota`, for every user and group that owns something or has a record."""
        self._check_counting()
        known = self.engine.load_quotas(QuotaKind.USER, QuotaKind.GROUP)
        return self._check_quotas(known, repair=repair, everybody=True)

    def _check_quotas(
        self, keys: Mapping[QuotaKey, Quota] | list[QuotaKey], *, repair: bool, everybody: bool = False
    ) -> dict[QuotaKey, QuotaFinding]:
        self.flush()
        counted: dict[QuotaKey, Load] = {}
        if everybody or any(key.kind is not QuotaKind.DIRECTORY for key in keys):
            self._check_counting()
            counted = weigh_owners(self.engine)
        with self.engine.view() as view:
            stored = view.quotas(sorted({*keys, *counted} if everybody else set(keys)))
        found: dict[QuotaKey, QuotaFinding] = {}
        for key in {*keys, *counted} if everybody else keys:
            if key.kind is QuotaKind.DIRECTORY:
                if key not in stored:
                    raise NotFound(f"directory inode {key.number} has no quota")
                counted[key] = weigh(self.engine, key.number)
            found[key] = QuotaFinding(stored.get(key), counted.get(key, Load()))
        wrong = {key: finding.counted for key, finding in found.items() if not finding.consistent}
        if repair and wrong:
            self._check_writable()
            self._put_usage(wrong)
        return dict(sorted(found.items()))

    def _check_counting(self) -> None:
        if not self.setting.user_group_quota:
            raise SettingError("the volume does not count by user and group; setting a quota of one turns that on")

    def _check_directory(self, ino: int) -> None:
        if in_trash(ino):
            raise NotPermitted("nothing in the trash has a quota")
        attr = self._node(ino, fresh=True)
        if in_trash(attr.parent):
            raise NotPermitted("nothing in the trash has a quota")
        if attr.kind != Kind.DIRECTORY:
            raise NotADir(f"inode {ino}")

    def _put_usage(self, usage: Mapping[QuotaKey, Load]) -> None:
        for key, load in usage.items():
            self._run(_ROOT, partial(quota.use, key=key, used=load))
        self._adopt(self.setting)

    def amend(self, change: Callable[[Setting], Setting], *, count: bool = True) -> Setting:
        """Change the stored setting as it is now; keys that this client does not know stay. Returns the new one.

        What a change needs is done: the trash gets its root, statistics begin anew when they are turned on, and usage
        by owner is counted (unless the caller does, without `count`).
        """
        self._check_writable()
        stored = self.engine.load_setting()
        if stored is None:
            raise SettingError(f"there is no volume in {self.engine.location}")
        old = Setting.parse(stored)
        new = change(old)
        if new == old:
            return old
        if new.dir_stats and not old.dir_stats:
            self._run(_ROOT, quota.begin_stats)
        if new.user_group_quota and not old.user_group_quota:
            self._run(_ROOT, quota.begin_owners)
        if new.trash_days > 0:
            self._run(_ROOT, quota.make_trash)
        self.engine.store_setting(new.render())
        self._adopt(new)
        if count and new.user_group_quota and not old.user_group_quota:
            self._put_usage(weigh_owners(self.engine))
        return new
