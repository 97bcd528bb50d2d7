"""The setting: a volume's stored descriptor, its JSON text, and who may open it (volume-format.md 1).

Rule 1  keys are matched without regard to case; keys we do not know are kept and written back.
Rule 2  what the format leaves out when empty is left out; the order of keys is the format's.
Rule 3  what is not built yet makes a volume read-only for us, or refused; it is never written blindly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from fscore.domain.errors import SettingError
from fscore.domain.secrets import unwrap_secret, wrap_secret
from fscore.domain.version import IMPLEMENTS, parse_version

META_VERSION: Final = 1
COMPRESSIONS: Final = frozenset({"", "none", "lz4", "zstd"})
ENCRYPTIONS: Final = frozenset({"", "aes256gcm-rsa", "chacha20-rsa"})
NAME_PATTERN: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
SECRETS: Final = ("secret_key", "session_token", "encrypt_key")


def _default_tiers() -> dict[str, Any]:
    return {"0": {"ID": 0, "StorageClass": "", "Tag": ""}}


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A volume's descriptor. Defaults are those of `format`; capacity is bytes, `block_size_kib` what is stored."""

    name: str
    uuid: str
    storage: str = "file"
    storage_class: str = ""
    tiers: dict[str, Any] | None = msgspec.field(default_factory=_default_tiers)
    bucket: str = ""
    access_key: str = ""
    secret_key: str = ""
    session_token: str = ""
    block_size_kib: int = 4096
    compression: str = "none"
    shards: int = 0
    hash_prefix: bool = False
    capacity: int = 0
    inodes: int = 0
    encrypt_key: str = ""
    encrypt_algo: str = "aes256gcm-rsa"
    key_encrypted: bool = False
    upload_limit: int = 0
    download_limit: int = 0
    trash_days: int = 1
    meta_version: int = META_VERSION
    min_client_version: str = "1.1.0-A"
    max_client_version: str = ""
    dir_stats: bool = True
    user_group_quota: bool = False
    enable_acl: bool = False
    ranger_rest_url: str = ""
    ranger_service: str = ""
    change_log: bool = False
    change_log_max_age: int = 0
    change_log_max_lines: int = 0
    kerb_conf: str = ""
    unknown: dict[str, Any] = {}

    @property
    def block_size(self) -> int:
        """Bytes of a full block."""
        return self.block_size_kib * 1024

    @property
    def tier_numbers(self) -> tuple[int, ...]:
        """The tiers that files may belong to; 0 is always there."""
        return tuple(sorted({0} | {int(number) for number in self.tiers or {} if number.isdecimal()}))

    def tier(self, number: int) -> tuple[str, str]:
        """Storage class and tag (`key=value`) of a tier's objects, empty for the store's own; an unknown one is 0."""
        tiers = self.tiers or {"0": {"StorageClass": self.storage_class}}
        found = tiers.get(str(number), tiers.get("0")) or {}
        return str(found.get("StorageClass") or ""), str(found.get("Tag") or "")

    @classmethod
    def parse(cls, data: bytes) -> Setting:
        """The setting in its stored JSON text. SettingError when it is none."""
        try:
            document = json.loads(data)
        except ValueError as error:
            raise SettingError(f"the volume's setting is no JSON: {error}") from error
        if not isinstance(document, dict):
            raise SettingError("the volume's setting is no JSON object")
        values: dict[str, Any] = {field.attribute: field.absent for field in _FIELDS}
        unknown: dict[str, Any] = {}
        for key, value in document.items():
            field = _BY_KEY.get(key.lower())
            if field is None:
                unknown[key] = value
            elif value is not None or field.attribute == "tiers":
                values[field.attribute] = value
        try:
            return msgspec.convert(values | {"unknown": unknown}, cls)
        except msgspec.ValidationError as error:
            raise SettingError(f"the volume's setting has a key of the wrong type: {error}") from error

    def render(self) -> bytes:
        """The JSON text to store: newlines, no indentation, as the official client writes it."""
        document: dict[str, Any] = {}
        for field in _FIELDS:
            value = getattr(self, field.attribute)
            if value or not field.omit:
                document[field.key] = value
        document |= self.unknown
        text = json.dumps(document, indent=0, ensure_ascii=False)
        for char in "<>&\u2028\u2029":
            text = text.replace(char, f"\\u{ord(char):04x}")
        return text.encode()

    def with_plain_secrets(self) -> Setting:
        """This setting with its secrets unwrapped, for the process that uses them. Never store it."""
        if not self.key_encrypted:
            return self
        plain = {name: unwrap_secret(getattr(self, name), self.uuid, self.encrypt_algo) for name in SECRETS}
        return msgspec.structs.replace(self, key_encrypted=False, **plain)

    def with_wrapped_secrets(self, nonce: Callable[[], bytes]) -> Setting:
        """This setting as it is stored: secrets wrapped, each with a nonce of 12 fresh bytes."""
        if self.key_encrypted or not any(getattr(self, name) for name in SECRETS):
            return self
        wrapped = {name: wrap_secret(getattr(self, name), self.uuid, nonce(), self.encrypt_algo) for name in SECRETS}
        return msgspec.structs.replace(self, key_encrypted=True, **wrapped)


class _Field(NamedTuple):
    """One key of the JSON text; `absent` is what a missing key means."""

    attribute: str
    key: str
    omit: bool
    absent: Any


_FIELDS: Final = (
    _Field("name", "Name", omit=False, absent=""),
    _Field("uuid", "UUID", omit=False, absent=""),
    _Field("storage", "Storage", omit=False, absent=""),
    _Field("storage_class", "StorageClass", omit=True, absent=""),
    _Field("tiers", "Tiers", omit=False, absent=None),
    _Field("bucket", "Bucket", omit=False, absent=""),
    _Field("access_key", "AccessKey", omit=True, absent=""),
    _Field("secret_key", "SecretKey", omit=True, absent=""),
    _Field("session_token", "SessionToken", omit=True, absent=""),
    _Field("block_size_kib", "BlockSize", omit=False, absent=4096),
    _Field("compression", "Compression", omit=True, absent=""),
    _Field("shards", "Shards", omit=True, absent=0),
    _Field("hash_prefix", "HashPrefix", omit=True, absent=False),
    _Field("capacity", "Capacity", omit=True, absent=0),
    _Field("inodes", "Inodes", omit=True, absent=0),
    _Field("encrypt_key", "EncryptKey", omit=True, absent=""),
    _Field("encrypt_algo", "EncryptAlgo", omit=True, absent=""),
    _Field("key_encrypted", "KeyEncrypted", omit=True, absent=False),
    _Field("upload_limit", "UploadLimit", omit=True, absent=0),
    _Field("download_limit", "DownloadLimit", omit=True, absent=0),
    _Field("trash_days", "TrashDays", omit=False, absent=0),
    _Field("meta_version", "MetaVersion", omit=True, absent=0),
    _Field("min_client_version", "MinClientVersion", omit=True, absent=""),
    _Field("max_client_version", "MaxClientVersion", omit=True, absent=""),
    _Field("dir_stats", "DirStats", omit=True, absent=False),
    _Field("user_group_quota", "UserGroupQuota", omit=True, absent=False),
    _Field("enable_acl", "EnableACL", omit=False, absent=False),
    _Field("ranger_rest_url", "RangerRestUrl", omit=True, absent=""),
    _Field("ranger_service", "RangerService", omit=True, absent=""),
    _Field("change_log", "ChangeLog", omit=True, absent=False),
    _Field("change_log_max_age", "ChangeLogMaxAge", omit=True, absent=0),
    _Field("change_log_max_lines", "ChangeLogMaxLines", omit=True, absent=0),
    _Field("kerb_conf", "KerbConf", omit=True, absent=""),
)
_BY_KEY: Final = {field.key.lower(): field for field in _FIELDS}


def check_client(setting: Setting, read_only: bool = False, *, metadata_only: bool = False) -> list[str]:
    """Why this client must not open the volume (to write it, unless `read_only`); empty when it may.

    With `metadata_only` the bytes of files are of no interest, so that how they are stored does not count.
    """
    reasons = _refusals(setting)
    if not metadata_only:
        reasons += _unreadable(setting)
    if not read_only:
        reasons += _unwritable(setting)
    return reasons


def _refusals(setting: Setting) -> list[str]:
    reasons = []
    if setting.meta_version != META_VERSION:
        reasons.append(f"its layout has version {setting.meta_version}, this client knows {META_VERSION} only")
    own = parse_version(IMPLEMENTS)
    assert own is not None
    if setting.min_client_version:
        lowest = parse_version(setting.min_client_version)
        if lowest is None or own < lowest:
            reasons.append(f"it asks for clients from version {setting.min_client_version}, this one is {IMPLEMENTS}")
    if setting.max_client_version:
        highest = parse_version(setting.max_client_version)
        if highest is None or own > highest:
            reasons.append(f"it asks for clients up to version {setting.max_client_version}, this one is {IMPLEMENTS}")
    if setting.ranger_rest_url or setting.ranger_service or setting.kerb_conf:
        reasons.append("Ranger or Kerberos decides who may read it, which this client would bypass")
    if any(key.lower() == "partitions" for key in setting.unknown):
        reasons.append("it has the object layout of releases before 1.0")
    return reasons


def _unreadable(setting: Setting) -> list[str]:
    reasons = []
    if setting.compression.lower() not in COMPRESSIONS:
        reasons.append(f"its blocks are compressed with {setting.compression}, which this client does not know")
    if setting.encrypt_key and setting.encrypt_algo.lower() not in ENCRYPTIONS:
        reasons.append(f"its blocks are encrypted with {setting.encrypt_algo}, which this client does not know")
    return reasons


def _unwritable(setting: Setting) -> list[str]:
    reasons = []
    unknown = [key for key in setting.unknown if key.lower() != "partitions"]
    if unknown:
        reasons.append(f"its setting has keys of a newer release: {', '.join(sorted(unknown))}")
    return reasons
