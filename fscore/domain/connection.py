"""An Airflow connection of type `fscore`, as `AIRFLOW_CONN_<NAME>` holds it in JSON: where a volume is, and options.

Host is the META-URL, Password that of its server when the URL has none, Extra the options of `fscore.open_volume`;
`regions` in it is for the plugin. Pure text.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from fscore.domain.errors import SettingError


def parse_connection(name: str, text: str) -> dict[str, Any]:
    """The options of the connection `name`, with its META-URL as `meta`. Raises SettingError."""
    try:
        found = json.loads(text)
        extra = found.get("extra") or {}
        extra = json.loads(extra) if isinstance(extra, str) else dict(extra)
    except (ValueError, AttributeError, TypeError) as error:
        raise SettingError(f"connection {name} is no JSON of a connection: {error}") from error
    url = str(found.get("host") or "")
    if found.get("conn_type") != "fscore" or "://" not in url:
        raise SettingError(f"connection {name} is not of type fscore with a META-URL as its host")
    extra.pop("regions", None)
    return extra | {"meta": with_password(url, found.get("password"))}


def with_password(url: str, password: str | None) -> str:
    """The URL with this password, unless it has one or names no server."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    if not password or not authority:
        return url
    user, at, host = authority.rpartition("@")
    if ":" in user:
        return url
    return f"{scheme}://{user}:{quote(password, safe='')}@{host if at else authority}{slash}{path}"
