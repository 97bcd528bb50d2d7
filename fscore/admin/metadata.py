"""A volume's metadata for administrators: no session, nothing in the background, no object store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fscore.domain.caller import Caller
from fscore.domain.errors import FsError
from fscore.domain.ids import ROOT
from fscore.meta.engines.registry import open_engine
from fscore.meta.service import MetaService
from fscore.volume import locate

ROOT_USER: Final = Caller.root()


@contextmanager
def metadata(target: str, *, read_only: bool = False, setting_only: bool = False) -> Iterator[MetaService]:
    """The metadata behind a META-URL or a name from volumes.toml, closed at the end."""
    url, listed = locate(target)
    engine = open_engine(url)
    try:
        meta = MetaService.open(
            engine,
            read_only=read_only or bool(listed.get("read_only")),
            session=False,
            background=False,
            metadata_only=True,
            setting_only=setting_only,
        )
    except BaseException:
        engine.close()
        raise
    with meta:
        yield meta


def path_of(meta: MetaService, ino: int) -> str | None:
    """The path of a directory; None when it is gone or cannot be reached."""
    parts: list[bytes] = []
    while ino != ROOT:
        try:
            above = meta.getattr(ino).parent
        except FsError:
            return None
        name = next((entry.name for entry in meta.readdir(ROOT_USER, above, attrs=False) if entry.ino == ino), None)
        if name is None:
            return None
        parts.append(name)
        ino = above
    return "/" + b"/".join(reversed(parts)).decode("utf-8", "surrogateescape")
