"""What the README says about mounts runs as it is printed, and names options that there are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fscore.cli.main import mount_options
from tests.kit.mounts import need_fuse

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.mount
def test_the_commands_run_as_printed(tmp_path: Path) -> None:
    need_fuse()
    (commands,) = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    before = """
META=sqlite3://$PWD/meta.db
fscore format $META tour --bucket $PWD/blocks --compress lz4 --quiet
printf '[tour]\\nmeta = "%s"\\n' "$META" > volumes.toml
mkdir notes && echo hello > notes/readme.txt
fscore cp tour -r ./notes :/notes --quiet
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FSCORE")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"}
    environment |= {"FSCORE_VOLUMES": str(tmp_path / "volumes.toml")}
    script = f"set -euo pipefail\n{before}\n{commands}\nmountpoint -q mnt && exit 9; fscore fsck tour"
    try:
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "mnt")], capture_output=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "hello\n" in done.stdout
    assert re.search(r"^juicefs_fuse_ops_total_lookup \d+$", done.stdout, re.MULTILINE)
    assert "sound" in done.stdout
    assert "everything is committed" in done.stderr


def test_the_options_it_names_are_there() -> None:
    section = README.split("## Mount\n")[1].split("\n## ")[0]
    named = {name for name in re.findall(r"`--([a-z-]+)", section) if name not in {"lazy", "force", "help"}}
    assert named - set(mount_options()) == set()
    assert len(named) > 20
    fstab = re.search(r"  fscore  (\S+)  0 0", section)
    assert fstab is not None
    options = [word.partition("=")[0] for word in fstab[1].split(",") if "=" in word]
    assert set(options) <= set(mount_options())
