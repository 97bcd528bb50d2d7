"""Our mount beside the official client's and beside the disk: the same programs on each, in turns, in one run.

Every contender has a volume of its own (Redis or SQLite, objects in a local folder or in S3). Give paths of what is
mounted already with `--path LABEL=DIR`, and nothing is started.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from fscore.domain.errors import StoreError
from tests.bench import mount_work as work
from tests.bench.mounted import Contender, Local, Mounted, Official, Ours, Place, drop_pages

PEER: Final = "official"
SMALLER_IS_BETTER: Final = ("random", "import")
BARS: Final = {
    "create": 1.0,
    "stat": 1.0,
    "rename": 1.0,
    "unlink": 1.0,
    "readdir": 0.5,
    "readdir + stat": 0.5,
    "cp -r small files": 2.0,
    "write": 1.0,
    "warm: read 128 KiB": 1.0,
    "warm: read 1 MiB": 1.0,
    "warm: mmap": 1.0,
    "warm: random 4 KiB p50": 1.0,
    "cold from s3: read 128 KiB": 1.5,
    "warm: import pandas, scipy": 1.0,
}
"""What ours must reach of the official client's figure, read so that more is better."""

LOCAL_BARS: Final = {"whole: read 128 KiB": 0.8, "whole: read 1 MiB": 0.8, "whole: mmap": 0.8}
"""What ours must reach of the local disk's, on the transport that has passthrough."""

OWN_BARS: Final = {"whole: random 4 KiB p50": 5.0}
"""What ours must stay below by itself, on the transport that has passthrough: microseconds."""

Figures = dict[str, dict[str, list[float]]]


def main() -> int:
    """Run, print, save; 1 when a bar is missed."""
    args = _arguments()
    place = Path(tempfile.mkdtemp(prefix="bench-mount-", dir=args.dir))
    figures: Figures = defaultdict(lambda: defaultdict(list))
    contenders: list[Contender] = []
    try:
        with Place(place, meta=args.meta, store=args.store) as home:
            try:
                contenders.extend(_contenders(home, args))  # one by one: those before one that fails are closed
                if not contenders:
                    sys.exit("there is nothing to measure: no contender could be mounted")
                for number in range(args.rounds):
                    _round(contenders, figures, place, number, args)
                    print(f"round {number + 1} of {args.rounds} is done", file=sys.stderr)
            finally:
                for contender in contenders:
                    contender.close()
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if args.json:
        Path(args.json).write_text(json.dumps({"arguments": vars(args), "figures": figures}, indent=1))
    return _tell(figures)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", default=None, help="where volumes, caches and mount points go")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024, help="size of the file that is written and read")
    parser.add_argument("--files", type=int, default=2000, help="files that are created, renamed, removed")
    parser.add_argument("--small", type=int, default=7600, help="small files of cp -r")
    parser.add_argument("--listed", type=int, default=10000, help="entries of the directory that is listed")
    parser.add_argument("--meta", choices=("redis", "sqlite"), default="redis")
    parser.add_argument("--store", default="file", help="file, s3 (Ceph, started here) or the http URL of an S3 server")
    parser.add_argument("--only", default="names,listing,copy,write,warm,cold,whole,import", help="which works")
    parser.add_argument("--contenders", default="local,kernel,pyfuse3,official")
    parser.add_argument(
        "--path", action="append", default=[], metavar="LABEL=DIR", help="a mount that is there already"
    )
    parser.add_argument("--json", default="", help="save every figure here")
    return parser.parse_args()


def _contenders(home: Place, args: argparse.Namespace) -> Iterator[Contender]:
    """Those that can be mounted; of the others it is said why not."""
    yield from (Mounted(*text.split("=", 1)) for text in args.path)
    for name in () if args.path else args.contenders.split(","):
        try:
            yield _contender(home, name)
        except (OSError, RuntimeError, StoreError, ValueError) as error:
            print(f"without {name}: {error}", file=sys.stderr)


def _contender(home: Place, name: str) -> Contender:
    if name == "local":
        return Local(home)
    if name in {"kernel", "pyfuse3"}:
        return Ours(home, name)
    if name != PEER:
        raise ValueError("there are local, kernel, pyfuse3 and official")
    if not os.environ.get("JUICEFS_BIN"):
        raise ValueError("JUICEFS_BIN does not name its program")
    return Official(home, os.environ["JUICEFS_BIN"])


def _round(contenders: list[Contender], figures: Figures, place: Path, number: int, args: argparse.Namespace) -> None:
    only = set(args.only.split(","))
    turn = contenders[number % len(contenders) :] + contenders[: number % len(contenders)]
    tree = work.make_tree(place, args.small) if "copy" in only and number == 0 else place / "small-files"
    for wanted, prefix, run in _works(args, tree, number):
        if wanted not in only:
            continue
        for contender in turn:
            for name, figure in run(contender).items():
                figures[contender.label][prefix + name].append(figure)


Run = Callable[[Contender], dict[str, float]]


def _works(args: argparse.Namespace, tree: Path, number: int) -> list[tuple[str, str, Run]]:
    def listing(one: Contender) -> dict[str, float]:
        work.fill_folder(one.base, args.listed)
        return work.listing(one.base)

    def write(one: Contender) -> dict[str, float]:
        return work.write_file(one.base / "written", args.mib)

    def warm(one: Contender) -> dict[str, float]:
        path = _big_file(one, args.mib)
        one.warm(path)
        return work.reads(path, one.forget) | _random(one, path, number)

    def cold(one: Contender) -> dict[str, float]:
        path = _big_file(one, args.mib)
        one.chill()
        return {"read 128 KiB": work.read_file(path, 128 << 10)} if one.can_chill else {}

    def whole(one: Contender) -> dict[str, float]:
        path = _big_file(one, args.mib, "whole")
        return work.reads(path, one.forget) | _random(one, path, number) if one.make_whole(path) else {}

    def packages(one: Contender) -> dict[str, float]:
        work.fill_packages(one.base)
        one.chill()
        cold = work.import_packages(one.base) if one.can_chill else {}
        found = {f"cold: {name}": figure for name, figure in cold.items()}
        work.import_packages(one.base)
        return found | {f"warm: {name}": figure for name, figure in work.import_packages(one.base).items()}

    return [
        ("names", "", lambda one: work.names(one.base, args.files)),
        ("listing", "", listing),
        ("copy", "", lambda one: work.copy_tree(one.base, tree)),
        ("write", "", write),
        ("warm", "warm: ", warm),
        ("cold", f"cold from {'s3' if args.store == 's3' or '://' in args.store else args.store}: ", cold),
        ("whole", "whole: ", whole),
        ("import", "", packages),
    ]


def _big_file(one: Contender, mib: int, name: str = "big") -> Path:
    path = one.base / name
    if not path.exists():
        work.write_file(path, mib)
        drop_pages()
        work.check_file(path, mib)
    return path


def _random(one: Contender, path: Path, number: int) -> dict[str, float]:
    one.forget(path)
    return work.random_reads(path, 5000, number)


def _tell(figures: Figures) -> int:
    """The table of medians and ratios."""
    labels = list(figures)
    works = list(dict.fromkeys(name for found in figures.values() for name in found))
    print(f"{'':34}" + "".join(f"{label:>12}" for label in labels) + "   of the official client's, of the disk's")
    missed = 0
    for name in works:
        medians = {label: statistics.median(figures[label][name]) for label in labels if figures[label].get(name)}
        ratios = []
        for label in labels:
            if label in {PEER, "local"} or label not in medians:
                continue
            for peer, bars in ((PEER, BARS), ("local", LOCAL_BARS)):
                if peer in medians:
                    ratio = _ratio(name, medians[label], medians[peer])
                    short = name in bars and ratio < bars[name] and (label, peer) != ("pyfuse3", "local")
                    missed += short
                    ratios.append(f"{label}/{peer} {ratio:.2f}{' MISSED' if short else ''}")
        for label in medians if name in OWN_BARS else ():
            short = label == "kernel" and medians[label] >= OWN_BARS[name]
            missed += short
            ratios += [f"{label} below {OWN_BARS[name]:g} us: MISSED"] if short else []
        cells = "".join(f"{medians[label]:12.4g}" if label in medians else f"{'-':>12}" for label in labels)
        print(f"{name:34}{cells}   {', '.join(ratios)}")
    beside = {PEER: BARS, "local": LOCAL_BARS, "kernel": OWN_BARS}
    for one, bars in beside.items():
        absent = [name for name in bars if name not in figures[one]]
        if absent:
            print(f"no bar was held, for want of {one}'s figures: {', '.join(absent)}")
    return 1 if missed else 0


def _ratio(name: str, ours: float, theirs: float) -> float:
    return theirs / ours if any(word in name for word in SMALLER_IS_BETTER) else ours / theirs


if __name__ == "__main__":
    sys.exit(main())
