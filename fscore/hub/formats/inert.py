"""Reads a pickle as plain data: a machine of our own that knows the opcodes and calls, imports and makes nothing.

`pickletools.genops` only cuts the stream into opcodes. A global becomes a `Name`, a call becomes a `Made` that
remembers what would have been called with what, and so an evil pickle is a value that can be looked at.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from typing import Any

from fscore.hub.formats.api import FormatError, UnsafeError

MOST_BYTES = 1 << 30
_MOST_MEMO = 1 << 26


class Name:
    """A global that the pickle mentions; it was not imported."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"

    def __repr__(self) -> str:
        return f"<{self}>"


class Made:
    """What a call would have made: whom, with which arguments, and what was put into it afterwards."""

    __slots__ = ("args", "entries", "items", "of", "state")

    def __init__(self, of: object, args: tuple[Any, ...]) -> None:
        self.of = of
        self.args = args
        self.state: Any = None
        self.items: list[Any] = []
        self.entries: dict[Any, Any] = {}

    @property
    def fields(self) -> dict[str, Any]:
        """Its attributes, where the state is one dictionary (or the pair that slots make)."""
        state = self.state[1] if isinstance(self.state, tuple) and len(self.state) == 2 else self.state
        return state if isinstance(state, dict) else {}

    def __repr__(self) -> str:
        return f"<{self.of if isinstance(self.of, Name) else 'call'} made>"


class Persistent:
    """A reference to something outside the pickle, such as a storage."""

    __slots__ = ("key",)

    def __init__(self, key: object) -> None:
        self.key = key


class _Key:
    """Stands for a dictionary key that is not a plain value."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


_MARK = object()
_PLAIN = (str, int, float, bytes, bool, type(None), Made, Name)
_FILLED_DICTS = {"collections.OrderedDict", "collections.defaultdict", "builtins.dict", "__builtin__.dict"}


class Inert:
    """One pickle, read. `value` is what it holds, `names` are all globals that it mentions.

    A stream is left where the pickle ends.
    """

    def __init__(self, data: bytes | io.BytesIO, where: str = "pickle") -> None:
        size = len(data) if isinstance(data, bytes) else len(data.getbuffer())
        if size > MOST_BYTES:
            raise FormatError(f"{where}: a pickle of {size} bytes is too large to read")
        machine = _Machine(where)
        self.value: Any = machine.run(data)
        self.names = frozenset(machine.names)


class _Machine:
    """The stack, the memo and what each opcode does to them."""

    def __init__(self, where: str) -> None:
        self.names: set[str] = set()
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self._where = where

    def run(self, data: bytes | io.BytesIO) -> Any:  # noqa: ANN401  a pickle holds anything
        table = _OPCODES
        try:
            for opcode, argument, _ in pickletools.genops(data):
                if opcode.name == "STOP":
                    return self.stack[-1]
                action = table.get(opcode.name)
                if action is None:
                    raise UnsafeError(f"{self._where}: opcode {opcode.name} is not for model files")
                action(self, argument)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, UnicodeError) as error:
            raise FormatError(f"{self._where}: not a sound pickle: {error}") from None
        raise FormatError(f"{self._where}: the pickle does not end")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                items = self.stack[at + 1 :]
                del self.stack[at:]
                return items
        raise ValueError("no mark")

    def pop(self, _: object) -> None:
        self.stack.pop()

    def drop_mark(self, _: object) -> None:
        self.pop_mark()

    def name(self, module: object, name: object) -> Name:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a global whose name is no text")
        found = Name(module, name)
        self.names.add(str(found))
        return found

    def call(self, of: object, args: object) -> None:
        arguments = args if isinstance(args, tuple) else (args,)
        if isinstance(of, Name) and str(of) in _FILLED_DICTS:
            self.push({})
        else:
            self.push(Made(of, arguments))

    def global_(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.push(self.name(module, name))

    def stack_global(self, _: object) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push(self.name(module, name))

    def inst(self, argument: str) -> None:
        items = self.pop_mark()
        module, _, name = argument.partition(" ")
        self.call(self.name(module, name), tuple(items))

    def obj(self, _: object) -> None:
        of, *items = self.pop_mark()
        self.call(of, tuple(items))

    def reduce(self, _: object) -> None:
        args, of = self.stack.pop(), self.stack.pop()
        self.call(of, args)

    def newobj_ex(self, _: object) -> None:
        self.stack.pop()
        self.reduce(None)

    def build(self, _: object) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Made):
            self.stack[-1].state = state

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Made):
            target.items.extend(items)
        elif isinstance(target, list):
            target.extend(items)
        else:
            raise TypeError("items for something that is no list")

    def set_(self, items: list[Any]) -> None:
        target = self.stack[-1]
        table = target.entries if isinstance(target, Made) else target
        if not isinstance(table, dict) or len(items) % 2:
            raise TypeError("entries for something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            table[_as_key(key)] = value

    def put(self, argument: int | str) -> None:
        if len(self.memo) > _MOST_MEMO:
            raise ValueError("too many memoised values")
        self.memo[int(argument)] = self.stack[-1]

    def get(self, argument: int | str) -> None:
        self.push(self.memo[int(argument)])

    def dup(self, _: object) -> None:
        self.push(self.stack[-1])

    def dict_(self, _: object) -> None:
        items = self.pop_mark()
        self.push({})
        self.set_(items)

    def tuple_(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) < count:
            raise ValueError("too few values for a tuple")
        del self.stack[-count:]
        self.push(items)

    def setitem(self, _: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_([key, value])


def _as_key(key: object) -> object:
    """Plain values and flat tuples are keys; the rest is wrapped, for hashing deep tuples can exhaust the stack."""
    if isinstance(key, _PLAIN):
        return key
    if isinstance(key, tuple) and all(isinstance(part, _PLAIN) for part in key):
        return key
    return _Key(key)


def _constant(value: object) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(value)


def _argument(machine: _Machine, argument: Any) -> None:  # noqa: ANN401  a pickle holds anything
    machine.push(argument)


def _nothing(machine: _Machine, argument: object) -> None:
    del machine, argument


_ARGUMENTS = (
    "INT LONG LONG1 LONG4 BININT BININT1 BININT2 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE "
    "SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
)
_OPCODES: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(_ARGUMENTS.split(), _argument),
    **dict.fromkeys(("PROTO", "FRAME"), _nothing),
    "NONE": _constant(None),
    "NEWTRUE": _constant(value=True),
    "NEWFALSE": _constant(value=False),
    "EMPTY_TUPLE": _constant(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push([]),
    "MARK": lambda machine, _: machine.push(_MARK),
    "POP": _Machine.pop,
    "POP_MARK": _Machine.drop_mark,
    "DUP": _Machine.dup,
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "FROZENSET": lambda machine, _: machine.push(machine.pop_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_(1),
    "TUPLE2": lambda machine, _: machine.tuple_(2),
    "TUPLE3": lambda machine, _: machine.tuple_(3),
    "DICT": _Machine.dict_,
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.pop_mark()),
    "SETITEM": _Machine.setitem,
    "SETITEMS": lambda machine, _: machine.set_(machine.pop_mark()),
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "INST": _Machine.inst,
    "OBJ": _Machine.obj,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.newobj_ex,
    "BUILD": _Machine.build,
    "PERSID": lambda machine, argument: machine.push(Persistent(argument)),
    "BINPERSID": lambda machine, _: machine.push(Persistent(machine.stack.pop())),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
}
