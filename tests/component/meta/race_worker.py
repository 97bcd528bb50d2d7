"""A process of a race: `python -m tests.component.meta.race_worker META-URL PREFIX COUNT`, on the go of its stdin."""

from __future__ import annotations

import sys

from fscore.domain.caller import Caller
from fscore.domain.ids import ROOT
from fscore.meta.engines.registry import open_engine
from fscore.meta.service import MetaService
from fscore.runtime.clock import SystemClock


def main() -> None:
    """Create files and directories by turns in one directory, and link, rename and unlink some of them."""
    url, prefix, count = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3])
    service = MetaService.open(open_engine(url), SystemClock(), background=False, skip_dir_mtime_s=0.0)
    who = Caller.root()
    folder, _ = service.resolve(who, b"/race")
    shared, _ = service.resolve(who, b"/race/shared")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    won = 0
    for number in range(count):
        name = b"%s-%d" % (prefix, number)
        make = service.mkdir if number % 3 == 0 else service.create
        make(who, folder, name, 0o755)
        if number % 10 == 1:
            service.link(who, shared, folder, name + b"-link")
        if number % 10 == 2:
            service.rename(who, folder, name, folder, name + b"-moved")
        if number % 10 == 4 and number % 3:
            service.unlink(who, folder, name)
        try:
            service.create(who, folder, b"contested-%d" % number, 0o644)
            won += 1
        except FileExistsError:
            pass
    service.close()
    sys.stdout.write(f"{won}\n")


if __name__ == "__main__":
    assert ROOT == 1
    main()
