"""Objects sealed with a key of their own, which the volume's RSA key wraps (volume-format.md 5.3).

    2  length L of the wrapped key, big-endian      1  length N of the nonce
    L  the data key, RSA-OAEP with SHA-256 for digest and MGF1, label `keys`
    N  nonce      then the AEAD's ciphertext and its tag of 16 bytes, no associated data

Data key: 32 random bytes an object, for AES-256-GCM (`aes256gcm-rsa`) or ChaCha20-Poly1305 (`chacha20-rsa`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from fscore.domain.errors import CorruptError, SettingError
from fscore.objects.api import Buffer, ObjectStore, filled
from fscore.objects.wrap.wrapper import Wrapper

PASSPHRASE_ENV: Final = "JFS_RSA_PASSPHRASE"  # noqa: S105  a name, no secret

_HEAD: Final = struct.Struct(">HB")
_NONCE: Final = 12
_KEY: Final = 32
_OAEP: Final = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=b"keys")


class _Aead(Protocol):
    def encrypt(self, nonce: bytes, data: Buffer, associated_data: bytes | None) -> bytes: ...

    def decrypt(self, nonce: bytes, data: Buffer, associated_data: bytes | None) -> bytes: ...


_ALGORITHMS: Final[dict[str, Callable[[bytes], _Aead]]] = {
    "": AESGCM,
    "aes256gcm-rsa": AESGCM,
    "chacha20-rsa": ChaCha20Poly1305,
}


class Sealer:
    """Seals and opens whole objects. Thread-safe."""

    def __init__(self, pem: str, algorithm: str = "", passphrase: str | None = None) -> None:
        """`pem` is the volume's private key, unwrapped; its passphrase comes from JFS_RSA_PASSPHRASE if not given."""
        aead = _ALGORITHMS.get(algorithm.lower())
        if aead is None:
            raise SettingError(f"encryption {algorithm!r} is not one of {', '.join(filter(None, _ALGORITHMS))}")
        self._aead = aead
        self._key = _load(pem, os.environ.get(PASSPHRASE_ENV, "") if passphrase is None else passphrase)
        self._public = self._key.public_key()

    def seal(self, data: Buffer) -> bytes:
        """The stored form of `data`."""
        key, nonce = os.urandom(_KEY), os.urandom(_NONCE)
        wrapped = self._public.encrypt(key, _OAEP)
        sealed = self._aead(key).encrypt(nonce, data, None)
        return b"".join((_HEAD.pack(len(wrapped), _NONCE), wrapped, nonce, sealed))

    def open(self, stored: Buffer, what: str) -> bytes:
        """The plain form. CorruptError, naming `what`, if it was not sealed so or is damaged."""
        if len(stored) < _HEAD.size:
            raise CorruptError(f"{what}: {len(stored)} bytes are no sealed object")
        wrapped_size, nonce_size = _HEAD.unpack_from(stored)
        view = memoryview(stored)[_HEAD.size :]
        nonce_end = wrapped_size + nonce_size
        try:
            key = self._key.decrypt(bytes(view[:wrapped_size]), _OAEP)
            return self._aead(key).decrypt(bytes(view[wrapped_size:nonce_end]), view[nonce_end:], None)
        except (InvalidTag, ValueError) as error:
            raise CorruptError(f"{what} cannot be opened with the volume's key: it is damaged or not ours") from error


class Encrypted(Wrapper):
    """Everything in `inner` is sealed; parts of an object cannot be read alone."""

    def __init__(self, inner: ObjectStore, sealer: Sealer) -> None:
        super().__init__(inner)
        self._sealer = sealer

    @property
    def reads_parts(self) -> bool:
        """No: the tag covers the whole object."""
        return False

    @property
    def fills(self) -> bool:
        """No: what is stored is not what is wanted."""
        return False

    def put(self, key: str, data: Buffer) -> None:
        """Put, sealed."""
        self.inner.put(key, self._sealer.seal(data))

    def put_with(self, key: str, data: Buffer, metadata: dict[str, str]) -> None:
        """Put, sealed; the metadata is not."""
        super().put_with(key, self._sealer.seal(data), metadata)

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Put, sealed, unless the key exists."""
        return super().put_if_absent(key, self._sealer.seal(data))

    def get(self, key: str, offset: int = 0, length: int | None = None) -> Buffer:
        """The whole object, opened, and cut to what was asked for."""
        plain = self._sealer.open(self.inner.get(key), f"object {key!r} in {self.location}")
        if not offset and (length is None or length >= len(plain)):
            return plain
        return plain[offset:] if length is None else plain[offset : offset + length]

    def get_into(self, key: str, buffer: memoryview, offset: int = 0) -> int:
        """As get."""
        data = self.get(key, offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def fill(self, key: str, buffer: memoryview) -> tuple[int, dict[str, str]]:
        """The whole object, opened."""
        return filled(buffer, self.get(key)), {}

    def get_with(self, key: str) -> tuple[Buffer, dict[str, str]]:
        """The whole object, opened, and its metadata."""
        stored, metadata = super().get_with(key)
        return self._sealer.open(stored, f"object {key!r} in {self.location}"), metadata


def _load(pem: str, passphrase: str) -> rsa.RSAPrivateKey:
    protected = "ENCRYPTED" in pem
    if protected and not passphrase:
        raise SettingError(f"the volume's key is protected by a passphrase: set {PASSPHRASE_ENV}")
    try:
        key = serialization.load_pem_private_key(pem.encode(), passphrase.encode() if protected else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        hint = f"check {PASSPHRASE_ENV}" if protected else "it is no PEM of a private key"
        raise SettingError(f"the volume's key cannot be read: {hint}") from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise SettingError("the volume's key is no RSA key; SM2 volumes cannot be opened by fscore")
    return key
