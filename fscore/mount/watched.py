"""Operations that tell an observer of every call: same interface, one concern."""

from __future__ import annotations

import time
from typing import Final, Protocol, cast

from fscore.domain.caller import Caller
from fscore.mount.observer import Observer
from fscore.mount.operations import Operations

REQUESTS: Final = (
    "lookup,readlink,mknod,mkdir,symlink,link,unlink,rmdir,rename,getattr,setattr,access,getxattr,listxattr,setxattr,"
    "removexattr,getlk,setlk,flock,open,create,read,write,flush,release,fsync,fallocate,lseek,copy_file_range,opendir,"
    "readdir,readdirplus,releasedir,fsyncdir"
)
PEEKS: Final = ("lookup", "getattr", "read", "opendir")


class _Method(Protocol):
    def __call__(self, who: Caller, *args: object, **named: object) -> object: ...


class _Watched:
    """Every request's method wrapped, everything else as it is. Built once: a call costs one frame more."""

    def __init__(self, operations: Operations, observer: Observer) -> None:
        self._operations = operations
        for name in REQUESTS.split(","):
            setattr(self, name, _telling(name, getattr(operations, name), operations, observer))
        for name in PEEKS:
            setattr(self, f"peek_{name}", _telling(name, getattr(operations, f"peek_{name}"), operations, observer))

    def __getattr__(self, name: str) -> object:
        return getattr(self._operations, name)


def watched(operations: Operations) -> Operations:
    """The operations, telling their observer if they have one."""
    if operations.observer is None:
        return operations
    return cast(Operations, _Watched(operations, operations.observer))


def _telling(name: str, method: _Method, operations: Operations, observer: Observer) -> _Method:
    clock = time.perf_counter

    def call(who: Caller, *args: object, **named: object) -> object:
        began = clock()
        try:
            result = method(who, *args, **named)
        except BaseException as error:
            observer(name, who, args, None, operations.number(error), clock() - began)
            raise
        if result is not None or name not in PEEKS:  # a peek that answers nothing is followed by the call itself
            observer(name, who, args, result, 0, clock() - began)
        return result

    return call
