"""From an Airflow connection to an open volume."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from airflow.sdk import BaseHook

if TYPE_CHECKING:
    from fscore.volume import Volume


class VolumeHook(BaseHook):
    """Opens the volume that a connection of type `fscore` describes.

    Connection: Host = META-URL as JuiceFS users write it; Password = of the metadata server, when the URL
    has none; Extra = options of `fscore.open_volume` (`cache_dir`, `cache_size`, `bucket` ...), and
    `regions`, the connections of the volumes that published versions are copied to.
    A META-URL may be given in place of a connection's name.

    :param volume: name of a connection, or a META-URL.
    """

    conn_name_attr = "volume"
    default_conn_name = "fscore_default"
    conn_type = "fscore"
    hook_name = "fscore volume"
    _OWN: ClassVar[frozenset[str]] = frozenset({"regions"})

    def __init__(self, volume: str = default_conn_name) -> None:
        super().__init__()
        self.name = volume

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """The form under Admin > Connections."""
        return {
            "hidden_fields": ["schema", "port", "login"],
            "relabeling": {"host": "META-URL", "password": "Password of the metadata server"},
            "placeholders": {
                "host": "redis://meta:6379/1 or sqlite3:///var/lib/fscore/meta.db",
                "extra": '{"regions": ["cloud-b"], "cache_dir": "/var/cache/fscore"}',
            },
        }

    def get_conn(self) -> Volume:
        """Open the volume with the connection's options; the caller closes it."""
        return self._open({})

    @contextmanager
    def open(self, **options: object) -> Iterator[Volume]:
        """The open volume, closed at the end; `options` win over the connection's."""
        volume = self._open(options)
        try:
            yield volume
        finally:
            volume.close()

    def meta_url(self) -> str:
        """The META-URL, with the connection's password where the URL has none."""
        if "://" in self.name:
            return self.name
        connection = self.get_connection(self.name)
        url = str(connection.host or "")
        if "://" not in url:
            from fscore.domain.errors import SettingError

            raise SettingError(f"connection {self.name} has no META-URL in its Host field")
        return _with_password(url, connection.password)

    def regions(self) -> list[str]:
        """Connections of the volumes that this volume's published versions are copied to."""
        return [str(name) for name in self._extra().get("regions", [])]

    def test_connection(self) -> tuple[bool, str]:
        """For the Test button: opens the volume read-only and says its name."""
        try:
            with self.open(read_only=True, session=False) as volume:
                return True, f"volume {volume.setting.name} ({volume.setting.uuid})"
        except Exception as error:  # noqa: BLE001  the button shows whatever went wrong
            return False, str(error)

    def _open(self, options: dict[str, Any]) -> Volume:
        import fscore

        own = {key: value for key, value in self._extra().items() if key not in self._OWN}
        return fscore.open_volume(self.meta_url(), **{**own, **options})

    def _extra(self) -> dict[str, Any]:
        return {} if "://" in self.name else dict(self.get_connection(self.name).extra_dejson)


def _with_password(url: str, password: str | None) -> str:
    scheme, rest = url.split("://", 1)
    authority, slash, path = rest.partition("/")
    if not password or not authority:
        return url
    user, at, host = authority.rpartition("@")
    if ":" in user:
        return url
    return f"{scheme}://{user}:{quote(password, safe='')}@{host if at else authority}{slash}{path}"
