"""`rediss://`: the certificate of the server is checked against the authority that the URL names, or not at all."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fscore.domain.errors import StoreError
from fscore.meta.engines.redis.engine import open_redis
from tests.kit.redis_groups import HOST, free_port
from tests.kit.redis_server import RedisServer, need_redis

pytestmark = pytest.mark.redis


def certify(place: Path) -> None:
    """A key and a certificate for this machine, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (place / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (place / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.fixture
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """META-URL of a server that speaks TLS, and where its certificate is."""
    need_redis()
    place, port = tmp_path_factory.mktemp("tls"), free_port()
    certify(place)
    cert, key = str(place / "cert.pem"), str(place / "key.pem")
    options = ("--tls-port", str(port), "--bind", HOST, "--tls-cert-file", cert, "--tls-key-file", key)
    server = RedisServer(place, *options, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no")
    server.start()
    yield f"rediss://{HOST}:{port}/1", place / "cert.pem"
    server.stop()


def test_the_authority_is_named(secure: tuple[str, Path]) -> None:
    url, cert = secure
    engine = open_redis(f"{url}?tls-ca-cert-file={cert}")
    assert engine.load_setting() is None
    assert engine.location == url
    engine.close()


def test_nobody_vouches(secure: tuple[str, Path]) -> None:
    url, _ = secure
    with pytest.raises(StoreError, match=r"(?i)certificate"):
        open_redis(url)
    engine = open_redis(f"{url}?insecure-skip-verify=true")
    assert engine.load_setting() is None
    engine.close()
