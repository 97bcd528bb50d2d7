"""The size and manners of every file: short, documented, clean at the end, and without a trace of one machine."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("fscore", "plugins", "dags")
MAX_FILE, MAX_FUNCTION, MAX_BYTES = 500, 60, 2_000_000
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock", "requirements-demo.lock")

type_of_function = (ast.FunctionDef, ast.AsyncFunctionDef)


def sources(*tops: str) -> list[Path]:
    """Every Python file under these folders of the project."""
    return [path for top in tops for path in sorted((ROOT / top).rglob("*.py")) if "__pycache__" not in path.parts]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, methods and inner ones included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, type_of_function):
            yield node


def public(tree: ast.Module) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Module level classes and functions, and the methods of those classes, without a leading underscore."""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, *type_of_function)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base) for base in node.bases}
                for inner in node.body:
                    named = isinstance(inner, type_of_function) and not inner.name.startswith("_")
                    # A method that only fulfils an interface has its promise written there.
                    if named and not bases:
                        assert isinstance(inner, type_of_function)
                        yield inner


def relative(path: Path) -> str:
    """The path as a reader knows it."""
    return str(path.relative_to(ROOT))


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    long = {
        relative(path): count
        for path in sources(*CODE, "tests")
        if (count := len(path.read_text().splitlines())) > MAX_FILE
    }
    assert long == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{relative(path)}:{node.lineno} {node.name}": size
        for path in sources(*CODE, "tests")
        for node in functions(path)
        if (size := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION
    }
    assert long == {}


def test_every_module_and_public_class_says_what_it_is() -> None:
    silent = []
    for path in sources(*CODE):
        tree = ast.parse(path.read_text())
        if ast.get_docstring(tree) is None:
            silent.append(relative(path))
        silent += [
            f"{relative(path)}:{node.lineno} {node.name}"
            for node in public(tree)
            if ast.get_docstring(node) is None and len(node.body) + (node.end_lineno or 0) - node.lineno > 3
        ]
    assert silent == []


def test_every_test_module_says_what_it_proves() -> None:
    assert [relative(path) for path in sources("tests") if ast.get_docstring(ast.parse(path.read_text())) is None] == []


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|pytest\.mark\.(skip|xfail)\b")
    left = [
        f"{relative(path)}:{number}"
        for path in sources(*CODE, "tests")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert left == []


def test_no_section_banners() -> None:
    banner = re.compile(r"^\s*#\s*[-=#*~]{4,}")
    assert [
        f"{relative(path)}:{number}"
        for path in sources(*CODE, "tests")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if banner.match(line)
    ] == []


def test_asserts_and_prints_stay_out_of_the_product() -> None:
    """`python -O` must not change what the product refuses: an assert may narrow a type, nothing more."""
    loud = [
        f"{relative(path)}:{node.lineno}"
        for path in sources("fscore")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
        and not re.match(r"assert (isinstance|.* is not None|.* is None)", ast.unparse(node))
    ]
    assert loud == []


def texts() -> Iterator[Path]:
    """Every text file that belongs to the project."""
    suffixes = {".py", ".md", ".toml", ".yaml", ".yml", ".cfg", ".lock", ".json", ".sh", ""}
    ours = {".ci", ".gitignore", ".dockerignore", ".pre-commit-config.yaml", ".airflowignore"}
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        hidden = any((part.startswith(".") and part not in ours) or part in {"golden", "__pycache__"} for part in parts)
        if not hidden and path.is_file() and path.suffix in suffixes:
            yield path


def test_texts_end_with_one_newline_and_have_no_trailing_blanks() -> None:
    bad = []
    for path in texts():
        text = path.read_text(errors="replace")
        if text and (not text.endswith("\n") or text.endswith("\n\n") or re.search(r"[ \t]+$", text, re.MULTILINE)):
            bad.append(relative(path))
        if path.stat().st_size > MAX_BYTES:
            bad.append(f"{relative(path)} is large")
    assert bad == []


def test_no_path_of_one_machine() -> None:
    pattern = re.compile("|".join(["/wo" + "rk/", "/ro" + r"ot/\.", "/ho" + r"me/\w", r"\.lib" + "rary"]))
    assert [
        relative(path)
        for path in texts()
        if path.suffix != ".lock" and pattern.search(path.read_text(errors="replace"))
    ] == []


@pytest.mark.parametrize("name", LOCKS)
def test_locks_are_hashed_and_name_no_registry(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert "--index" not in text
    pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert pins
    assert all("==" in pin and pin.endswith("\\") for pin in pins), "every requirement is pinned and hashed"


def test_the_locks_agree() -> None:
    """What tests run on is what users get."""

    def pins(name: str) -> dict[str, str]:
        found = re.findall(r"^([\w.\[\]-]+)==([\w.!+]+)", (ROOT / name).read_text(), re.MULTILINE)
        return {package.partition("[")[0]: version for package, version in found}

    runtime, dev = pins("requirements.lock"), pins("requirements-dev.lock")
    assert {name: dev.get(name) for name in runtime} == runtime
    assert runtime["apache-airflow"] == "3.3.2"
    assert runtime["python-dateutil"].startswith("2.9"), "4.0 breaks what Airflow 3.3 takes from it"
    assert "pyfuse3" not in runtime, "needs a compiler: extra `mount` only"
