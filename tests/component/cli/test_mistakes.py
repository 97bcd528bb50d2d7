"""What users get wrong is told in one line that says what and where, with an exit code, and nothing is changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fscore.volume import open_volume
from tests.kit.command import Fscore

FILE = __file__


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("format VOLUME vol --bucket /tmp/b", 2, "holds a volume already; it is not formatted again"),
        ("ls tikv://host:2379/x", 2, "no metadata engine for tikv://; there are redis,"),
        ("ls nosuch", 2, "'nosuch' is no META-URL and no name in "),
        ("ls redis://127.0.0.1:1/1", 1, "redis://127.0.0.1:1/1 did not answer"),
        ("mount redis://127.0.0.1:1/1 DIR", 1, "redis://127.0.0.1:1/1 did not answer"),
        ("mount nosuch DIR", 2, "'nosuch' is no META-URL and no name in "),
        ("mount sqlite3://ABSENT DIR", 2, "there is no volume in sqlite3://ABSENT: format one first"),
        ("mount VOLUME FILE", 1, "FILE: not a directory"),
        ("mount VOLUME FILE/below", 1, "FILE/below: not a directory"),
        ("mount VOLUME DIR --subdir /none/here", 1, "/none/here: no such file or directory: no root for the mount"),
        ("mount VOLUME DIR --subdir /file", 1, "/file: not a directory: no root for the mount"),
        ("umount DIR", 1, "DIR: nothing is mounted here"),
        ("umount ABSENT", 1, "ABSENT: nothing is mounted here"),
        ("quota set VOLUME --path /none/here --capacity 1G", 1, "/none/here: no such file or directory"),
        ("quota get VOLUME --path /none", 1, "/none: no such file or directory"),
        ("quota set VOLUME --capacity 1G", 2, "say whose quota: --path, --uid or --gid"),
        ("compact VOLUME /none", 1, "/none: no such file or directory"),
        ("restore VOLUME 2020-01-01-00", 2, "the trash has no hour 2020-01-01-00"),
    ],
)
def test_one_line_says_what_and_where(
    fscore: Fscore, cli_volume: str, tmp_path: Path, words: str, code: int, says: str
) -> None:
    (tmp_path / "mnt").mkdir()
    with open_volume(cli_volume) as volume:
        volume.files.write_bytes("/file", b"x")
    places = {"VOLUME": cli_volume, "DIR": f"{tmp_path}/mnt", "FILE": FILE, "ABSENT": f"{tmp_path}/absent"}
    for word, place in places.items():
        words, says = words.replace(word, place), says.replace(word, place)
    assert says in fscore.refused(code, *words.split())


@pytest.mark.parametrize(
    "words",
    [
        "gc --delete",
        "compact /",
        "mkdir /d",
        "rm /file",
        "mv /file /other",
        "quota set --path / --capacity 1G",
        "config --trash-days 5",
        "trash empty --yes",
        "push SOURCE llm/tiny",
    ],
)
def test_what_volumes_toml_calls_read_only_is_not_changed(
    fscore: Fscore, cli_volume: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    with open_volume(cli_volume, background=False) as volume:
        for _ in range(3):
            with volume.files.open("/file", "ab") as file:
                file.write(b"x")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "weights").write_bytes(b"x" * 10)
    named = tmp_path / "volumes.toml"
    named.write_text(f'[kept]\nmeta = "{cli_volume}"\nread_only = true\n')
    monkeypatch.setenv("FSCORE_VOLUMES", str(named))
    command, *rest = words.replace("SOURCE", str(tmp_path / "source")).split()
    at = 1 if command in {"quota", "trash"} else 0  # their VOLUME stands behind the verb
    before = fscore("ls", "kept", "-lR", "/").ok().out, fscore("config", "kept").ok().out
    assert "read-only" in fscore.refused(1, command, *rest[:at], "kept", *rest[at:])
    assert before == (fscore("ls", "kept", "-lR", "/").ok().out, fscore("config", "kept").ok().out)
