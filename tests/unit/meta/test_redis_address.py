"""What a META-URL of Redis says: the forms, the ports that are left out, the secrets that are not shown."""

from __future__ import annotations

import pytest

from fscore.domain.errors import SettingError
from fscore.meta.engines.redis.address import Address, Form


@pytest.mark.parametrize(
    ("url", "form", "hosts", "db"),
    [
        ("redis://h", Form.SINGLE, (("h", 6379),), 0),
        ("redis://me:pw@h:1/2", Form.SINGLE, (("h", 1),), 2),
        ("redis://[::1]:7/3", Form.SINGLE, (("::1", 7),), 3),
        ("rediss://h:1/2?insecure-skip-verify=1", Form.SINGLE, (("h", 1),), 2),
        ("redis://master,s1,s2:5000/1", Form.SENTINEL, (("s1", 5000), ("s2", 5000)), 1),
        ("redis://master,s1:1,s2/1", Form.SENTINEL, (("s1", 1), ("s2", 26379)), 1),
        ("redis://:pw@master,s1,[::1]/4", Form.SENTINEL, (("s1", 26379), ("::1", 26379)), 4),
        ("redis://h1:7000,h2:7001,h3/5", Form.CLUSTER, (("h1", 7000), ("h2", 7001), ("h3", 6379)), 5),
    ],
)
def test_forms(url: str, form: Form, hosts: tuple[tuple[str, int], ...], db: int) -> None:
    address = Address(url)
    assert (address.form, address.hosts, address.db) == (form, hosts, db)
    assert "pw" not in address.location


def test_the_location_tells_where_and_no_secret() -> None:
    assert Address("redis://u:p@master,s1,s2:5/1").location == "redis://master,s1:5,s2:5/1"
    assert Address("redis://:a,b:c@h1:1,h2:2/3").location == "redis://h1:1,h2:2/3"
    assert Address("unix:///run/r.sock?db=7").location == "unix:///run/r.sock?db=7"


def test_a_sentinel_has_a_password_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTINEL_PASSWORD", "watch")
    address = Address("redis://me:secret@master,s1/2")
    assert address.sentinel(("s1", 1)).credential_provider is None
    assert (address.sentinel(("s1", 1)).username, address.sentinel(("s1", 1)).password) == (None, "watch")
    assert address.connection(("h", 1)).password == "secret"
    assert (address.connection(("h", 1)).db, address.connection(("h", 1), db=0).db) == (2, 0)


@pytest.mark.parametrize("listed", ["h1:x,h2:1", "[::1,h2", "m,s1:port"])
def test_what_names_no_server_is_refused_in_one_line(listed: str) -> None:
    with pytest.raises(SettingError, match="names no server") as caught:
        Address(f"redis://:secret@{listed}/1")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_replicas_to_wait_for() -> None:
    assert Address("redis://m,s/1").wait_replicas == 0
    assert Address("redis://m,s/1?wait-replicas=2").wait_replicas == 2
    with pytest.raises(SettingError, match="number of replicas"):
        Address("redis://m,s/1?wait-replicas=-1")
