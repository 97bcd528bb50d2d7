"""ACL rules of a volume, as far as this client knows them: immutable and shared, so that they are asked for once."""

from __future__ import annotations

import threading

from fscore.domain.acl import Rule
from fscore.meta.engine import MetaEngine


class AclBook:
    """Numbers to rules and back. Thread-safe. A rule that several clients store at once gets several numbers, which
    harms nobody (volume-format.md 2.11).
    """

    def __init__(self, engine: MetaEngine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._rules: dict[int, bytes] = {}
        self._ids: dict[Rule, int] = {}
        self._loaded = 0

    def acl(self, rule_id: int) -> bytes | None:
        """A rule as stored; None when the volume has no such rule."""
        rule = self._rules.get(rule_id)
        if rule is None:
            with self._engine.view() as view:
                rule = view.acl(rule_id)
            if rule is not None:
                self._learn(rule_id, rule)
        return rule

    def find(self, rule: Rule) -> int | None:
        """The number of an equal rule, as far as this client knows."""
        return self._ids.get(rule)

    def add(self, rule: Rule) -> int:
        """The number of an equal rule; when nobody has stored one, a fresh number under which it is stored now.

        Only rules above the largest number loaded before are loaded: one that became visible later than a larger one
        may be stored a second time.
        """
        fresh = self._engine.acls(after=self._loaded)
        for rule_id, stored in fresh.items():
            self._learn(rule_id, stored)
        self._loaded = max(self._loaded, *fresh, 0)
        found = self.find(rule)
        if found is None:
            stored = rule.render()
            found = self._engine.add_acl(stored)
            self._learn(found, stored)
        return found

    def _learn(self, rule_id: int, stored: bytes) -> None:
        with self._lock:
            self._rules[rule_id] = stored
            self._ids.setdefault(Rule.parse(stored), rule_id)
