"""Manifests: canonical bytes, no floats, and nothing altered or unsafe gets in."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from fscore.domain.errors import HubError
from fscore.hub import manifest as manifests
from fscore.hub.formats.api import TensorEntry
from fscore.hub.manifest import Manifest, ManifestFile, Uploader


def made(*files: ManifestFile, **more: object) -> Manifest:
    files = files or (entry("config.json"), entry("a/b.safetensors", kind="weight"))
    fields = {"created_at": "2026-01-02T03:04:05.006Z", "uploader": Uploader("ann"), **more}
    return Manifest("nlp", "m", 1, manifests.digest_of(files), files, **fields)  # type: ignore[arg-type]


def entry(path: str, content: bytes = b"x", kind: str = "weight.config") -> ManifestFile:
    sha256 = hashlib.sha256(content).hexdigest()
    return ManifestFile(path, len(content), hashlib.md5(content).hexdigest(), sha256, kind)


def test_a_manifest_survives_its_bytes() -> None:
    manifest = made(purpose="chat", arch={"dtype_hist": {"BF16": 3}, "architectures": ["Llama"]})
    data = manifests.render(manifest)
    assert manifests.parse(data) == manifest
    assert manifests.render(manifests.parse(data)) == data
    keys = list(msgspec.json.decode(data))
    assert keys == sorted(keys)
    assert b'"schema":"modelrepo/manifest/v1"' in data


def test_equal_content_has_equal_digests_whatever_the_order() -> None:
    one, two = entry("a"), entry("b", b"y")
    assert manifests.digest_of([one, two]) == manifests.digest_of([two, one])
    assert manifests.digest_of([one, two]) != manifests.digest_of([entry("a", b"y"), entry("b")])


def test_floats_do_not_get_in() -> None:
    with pytest.raises(HubError, match=r"manifest\.arch\.eps"):
        manifests.render(made(arch={"eps": 1e-5}))
    with pytest.raises(HubError, match=r"arch\.deep\[1\]"):
        manifests.render(made(arch={"deep": [1, 0.5]}))


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a/../b", ".fscore/manifest.json"])
def test_a_path_that_escapes_is_refused(path: str) -> None:
    data = manifests.render(made(entry(path)))
    with pytest.raises(HubError, match="unsafe path"):
        manifests.parse(data)


def test_an_altered_manifest_is_refused() -> None:
    data = manifests.render(made())
    altered = data.replace(hashlib.sha256(b"x").hexdigest().encode(), hashlib.sha256(b"y").hexdigest().encode())
    with pytest.raises(HubError, match="altered"):
        manifests.parse(altered)
    with pytest.raises(HubError, match="twice"):
        manifests.parse(manifests.render(made(entry("a"), entry("a"))))
    with pytest.raises(HubError, match="schema"):
        manifests.parse(data.replace(b"manifest/v1", b"manifest/v9"))
    with pytest.raises(HubError, match="no manifest"):
        manifests.parse(b"{}")


def test_tensor_tables_are_ordered_by_place() -> None:
    rows = [TensorEntry("b", "F32", (1,), "x", 8, 4, "aa"), TensorEntry("a", "F32", (1,), "x", 4, 4, "bb")]
    data = manifests.render_tensors(rows)
    assert manifests.parse_tensors(data) == rows[::-1]
    assert data == manifests.render_tensors(rows[::-1])
    with pytest.raises(HubError):
        manifests.parse_tensors(b"[1]")


def test_times_are_written_in_utc() -> None:
    assert manifests.timestamp(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123Z"
