"""Content addresses agree with what others compute."""

from __future__ import annotations

import hashlib

from fscore.domain.digest import oms_root, version_digest

FILES = {"README.md": b"w", "1_Pooling/config.json": b"z", "a.txt": b"x", "a/b": b"y", "config.json": b"hello"}
MODEL_SIGNING = "c35e84ac9f51aa7a7eb8cc6913b7c958515d14be78eff5f42d227115650c5ff4"
"""The subject digest that model-signing 1.1.1 signs for a directory of FILES (method "files", sha256)."""


def test_the_root_is_the_one_that_model_signing_signs() -> None:
    pairs = [(path, hashlib.sha256(data).hexdigest()) for path, data in FILES.items()]
    assert oms_root(pairs) == MODEL_SIGNING
    assert version_digest(reversed(pairs)) == f"sha256:{MODEL_SIGNING}"


def test_the_order_of_paths_is_that_of_their_parts() -> None:
    one, two = hashlib.sha256(b"1").hexdigest(), hashlib.sha256(b"2").hexdigest()
    assert oms_root([("a/b", one), ("a.txt", two)]) != oms_root([("a/b", two), ("a.txt", one)])
    assert oms_root([]) == hashlib.sha256().hexdigest()
