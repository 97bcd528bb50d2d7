"""The setting: golden texts, keys of any case, unknown keys, secrets, and who may open what."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from fscore.domain.errors import SettingError
from fscore.domain.secrets import unwrap_secret, wrap_secret
from fscore.domain.setting import Setting, check_client

UUID = "6b3f0c1e-5a9d-4c7e-9d1b-2f4a8e6c0d13"
NONCE = bytes(range(12))

FRESH = """{
"Name": "gv-redis-plain",
"UUID": "25568de9-9a89-4f65-99e8-78b84e24bc8c",
"Storage": "file",
"Tiers": {
"0": {
"ID": 0,
"StorageClass": "",
"Tag": ""
}
},
"Bucket": "/golden/redis-plain/objects/",
"BlockSize": 64,
"Compression": "none",
"EncryptAlgo": "aes256gcm-rsa",
"TrashDays": 1,
"MetaVersion": 1,
"MinClientVersion": "1.1.0-A",
"DirStats": true,
"EnableACL": false
}"""


def test_the_text_of_the_official_client_comes_back_byte_for_byte() -> None:
    setting = Setting.parse(FRESH.encode())
    assert setting.render() == FRESH.encode()
    assert (setting.name, setting.block_size, setting.trash_days) == ("gv-redis-plain", 65536, 1)
    assert setting.unknown == {}


def test_a_default_setting_is_what_format_writes() -> None:
    keys = list(json.loads(Setting(name="abc", uuid=UUID).render()))
    assert keys == [
        "Name", "UUID", "Storage", "Tiers", "Bucket", "BlockSize", "Compression", "EncryptAlgo", "TrashDays",
        "MetaVersion", "MinClientVersion", "DirStats", "EnableACL",
    ]  # fmt: skip


def test_every_key_in_the_order_of_the_format() -> None:
    full = Setting(
        name="abc", uuid=UUID, storage_class="IA", access_key="a", secret_key="b", session_token="c", shards=2,
        hash_prefix=True, capacity=1, inodes=2, encrypt_key="d", key_encrypted=True, upload_limit=3, download_limit=4,
        max_client_version="2.0.0", user_group_quota=True, ranger_rest_url="e", ranger_service="f", change_log=True,
        change_log_max_age=7200, change_log_max_lines=5, kerb_conf="g", unknown={"Brand": [1]},
    )  # fmt: skip
    document = json.loads(full.render())
    assert list(document) == [
        "Name", "UUID", "Storage", "StorageClass", "Tiers", "Bucket", "AccessKey", "SecretKey", "SessionToken",
        "BlockSize", "Compression", "Shards", "HashPrefix", "Capacity", "Inodes", "EncryptKey", "EncryptAlgo",
        "KeyEncrypted", "UploadLimit", "DownloadLimit", "TrashDays", "MetaVersion", "MinClientVersion",
        "MaxClientVersion", "DirStats", "UserGroupQuota", "EnableACL", "RangerRestUrl", "RangerService", "ChangeLog",
        "ChangeLogMaxAge", "ChangeLogMaxLines", "KerbConf", "Brand",
    ]  # fmt: skip
    assert Setting.parse(full.render()) == full


def test_keys_match_in_any_case_and_unknown_ones_survive() -> None:
    setting = Setting.parse(b'{"name":"abc","Uuid":"u","TRASHDAYS":7,"Fresh":{"x":null}}')
    assert (setting.name, setting.uuid, setting.trash_days) == ("abc", "u", 7)
    assert json.loads(setting.render())["Fresh"] == {"x": None}


def test_missing_keys_of_old_releases() -> None:
    setting = Setting.parse(b'{"Name":"abc","UUID":"u"}')
    assert (setting.trash_days, setting.meta_version, setting.dir_stats, setting.tiers) == (0, 0, False, None)
    assert (setting.compression, setting.min_client_version) == ("", "")


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"Name": 5}', b'{"TrashDays": "x"}', b"\xff"])
def test_texts_that_are_no_setting(text: bytes) -> None:
    with pytest.raises(SettingError):
        Setting.parse(text)


def test_the_vector_of_a_wrapped_secret() -> None:
    text = "AAECAwQFBgcICQoLlzCn9E8ltpi8vXjxNbwtk/3KBYz62fcNWADD1Vo="
    assert wrap_secret("my-secret-key", UUID, NONCE) == text
    assert unwrap_secret(text, UUID) == "my-secret-key"
    with pytest.raises(SettingError, match="another UUID"):
        unwrap_secret(text, UUID.upper())


@pytest.mark.parametrize("algo", ["aes256gcm-rsa", "chacha20-rsa", "sm4gcm", ""])
def test_secrets_come_back(algo: str) -> None:
    text = wrap_secret("s\u00e9cret", UUID, NONCE, algo)
    assert "cret" not in text
    assert unwrap_secret(text, UUID, algo) == "s\u00e9cret"
    assert wrap_secret("", UUID, NONCE, algo) == unwrap_secret("", UUID, algo) == ""


@pytest.mark.parametrize("text", ["removed", "no base64!", "c2hvcnQ="])
def test_secrets_that_are_gone(text: str) -> None:
    with pytest.raises(SettingError):
        unwrap_secret(text, UUID)


def test_a_setting_wraps_each_secret_with_its_own_nonce() -> None:
    plain = Setting(name="abc", uuid=UUID, access_key="visible", secret_key="hidden", session_token="hidden")
    count = iter(range(9))
    stored = plain.with_wrapped_secrets(lambda: bytes([next(count)]) * 12)
    assert stored.key_encrypted
    assert stored.access_key == "visible"
    assert len({stored.secret_key, stored.session_token, "hidden"}) == 3
    assert stored.encrypt_key == ""
    assert stored.with_wrapped_secrets(lambda: NONCE) == stored
    assert stored.with_plain_secrets() == plain
    open_ = Setting(name="abc", uuid=UUID, access_key="visible")
    assert open_.with_wrapped_secrets(lambda: NONCE) == open_


@pytest.mark.parametrize(
    ("change", "writes", "reads"),
    [
        ({}, True, True),
        ({"compression": "LZ4"}, True, True),
        ({"compression": ""}, True, True),
        ({"tiers": None}, True, True),
        ({"min_client_version": ""}, True, True),
        ({"min_client_version": "1.4.1"}, True, True),
        ({"min_client_version": "1.2.0-A"}, True, True),
        ({"max_client_version": "1.4.1"}, True, True),
        ({"unknown": {"New": 1}}, False, True),
        ({"change_log": True}, True, True),
        ({"enable_acl": True}, True, True),
        ({"user_group_quota": True}, True, True),
        ({"tiers": {"0": {}, "2": {}}}, True, True),
        ({"min_client_version": "1.4.2-A"}, False, False),
        ({"min_client_version": "soon"}, False, False),
        ({"max_client_version": "1.4.1-rc1"}, False, False),
        ({"meta_version": 0}, False, False),
        ({"meta_version": 2}, False, False),
        ({"kerb_conf": "x"}, False, False),
        ({"ranger_service": "x"}, False, False),
        ({"unknown": {"Partitions": 4}}, False, False),
        ({"encrypt_key": "x"}, True, True),
        ({"shards": 3}, True, True),
        ({"encrypt_key": "x", "encrypt_algo": "sm4gcm"}, False, False),
        ({"compression": "snappy"}, False, False),
    ],
)
def test_who_may_open_what(change: dict[str, object], *, writes: bool, reads: bool) -> None:
    setting = replace(Setting(name="abc", uuid=UUID), **change)
    assert (not check_client(setting), not check_client(setting, True)) == (writes, reads)


def test_how_blocks_are_stored_does_not_matter_to_who_reads_no_blocks() -> None:
    setting = Setting(name="abc", uuid=UUID, encrypt_key="x", encrypt_algo="sm4gcm", compression="snappy")
    assert check_client(setting, True, metadata_only=True) == []
