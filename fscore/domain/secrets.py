"""How a volume's setting wraps its secrets (volume-format.md 1.3): obfuscation with a key made of the UUID, no more."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fscore.domain.errors import SettingError

NONCE: Final = 12
TAG: Final = 16
SCRUBBED: Final = "removed"
"""What a dump leaves in place of a secret: it must be entered again."""

_SM4: Final = "sm4gcm"


def wrap_secret(secret: str, uuid: str, nonce: bytes, algo: str = "") -> str:
    """The stored text of a secret: base64 of nonce, ciphertext and tag. An empty secret stays empty."""
    if not secret:
        return ""
    seal = _seal_sm4 if algo == _SM4 else _seal_aes
    return base64.b64encode(nonce + seal(uuid, nonce, secret.encode())).decode()


def unwrap_secret(text: str, uuid: str, algo: str = "") -> str:
    """The secret behind its stored text. SettingError when it was scrubbed or belongs to another UUID."""
    if not text:
        return ""
    if text == SCRUBBED:
        raise SettingError("a secret of this volume was removed by a dump: enter it again")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise SettingError("a secret of this volume is no base64 text") from error
    if len(data) < NONCE + TAG:
        raise SettingError("a secret of this volume is too short to be one")
    unseal = _unseal_sm4 if algo == _SM4 else _unseal_aes
    try:
        return unseal(uuid, data[:NONCE], data[NONCE:]).decode()
    except (InvalidTag, UnicodeDecodeError) as error:
        raise SettingError("a secret of this volume was wrapped for another UUID") from error


def _aes_key(uuid: str) -> bytes:
    return hashlib.md5(uuid.encode(), usedforsecurity=False).digest()


def _seal_aes(uuid: str, nonce: bytes, plain: bytes) -> bytes:
    return AESGCM(_aes_key(uuid)).encrypt(nonce, plain, None)


def _unseal_aes(uuid: str, nonce: bytes, sealed: bytes) -> bytes:
    return AESGCM(_aes_key(uuid)).decrypt(nonce, sealed, None)


def _sm4_key(uuid: str) -> bytes:
    digest = hashes.Hash(hashes.SM3())
    digest.update(uuid.encode() + b"\x00\x00\x00\x01")
    return digest.finalize()[:16]


def _seal_sm4(uuid: str, nonce: bytes, plain: bytes) -> bytes:
    sealer = Cipher(algorithms.SM4(_sm4_key(uuid)), modes.GCM(nonce)).encryptor()
    return sealer.update(plain) + sealer.finalize() + sealer.tag


def _unseal_sm4(uuid: str, nonce: bytes, sealed: bytes) -> bytes:
    opener = Cipher(algorithms.SM4(_sm4_key(uuid)), modes.GCM(nonce, sealed[-TAG:])).decryptor()
    return opener.update(sealed[:-TAG]) + opener.finalize()
