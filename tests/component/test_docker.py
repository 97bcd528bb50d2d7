"""The container's files against the code that they start: what they copy, pin, call and mount is there."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import typer
import yaml  # type: ignore[import-untyped]
from typer.core import TyperGroup

from fscore.cli.main import build
from fscore.cli.mounting import plan_of
from fscore.domain.connection import parse_connection
from fscore_airflow.standalone.cli import _parser

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
COMPOSE = ROOT / "docker" / "compose.yaml"
POD = ROOT / "docker" / "inference.yaml"


def copied() -> list[list[str]]:
    """Sources and target of every COPY from the build context."""
    return [words.split() for words in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)]


def parsed(words: list[str]) -> dict[str, Any]:
    """The arguments of a command line of fscore, as its command receives them."""
    assert words[0] == "fscore"
    group = typer.main.get_command(build([words[1]]))
    assert isinstance(group, TyperGroup)
    with group.commands[words[1]].make_context(words[1], list(words[2:])) as context:
        return dict(context.params)


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    ignored = {line.strip("/") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    for *sources, _ in copied():
        for source in sources:
            assert (ROOT / source).exists(), source
            assert Path(source).parts[0] not in ignored, source


def test_the_image_pins_all_that_the_package_and_its_engines_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["postgres"], *extras["mysql"], "psycopg-binary"]
    pinned = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    names = {re.split(r"[\[<>=~ ]", one)[0].lower().replace("_", "-") for one in wanted}
    assert names - pinned == set()
    assert "requirements.lock" in copied()[0]


def test_the_image_starts_airflow_with_options_that_there_are() -> None:
    (command,) = re.findall(r"^CMD (.+)$", DOCKERFILE, re.MULTILINE)
    python, flag, module, *words = json.loads(command)
    assert (python, flag, module) == ("python", "-m", "fscore_airflow.standalone")
    asked = _parser().parse_args(words)
    targets = {target.rstrip("/") for *_, target in copied()}
    assert asked.command == "run"
    assert {str(asked.dags), str(asked.plugins)} <= targets
    assert re.search(rf"^EXPOSE {asked.port}$", DOCKERFILE, re.MULTILINE)


def test_compose_starts_what_the_connection_and_the_comment_name() -> None:
    text = COMPOSE.read_text()
    compose = yaml.safe_load(text)
    own = compose["services"]["fscore"]
    assert (COMPOSE.parent / own["build"]["context"] / own["build"]["dockerfile"]).samefile(ROOT / "docker/Dockerfile")
    meta = parse_connection("fscore_default", own["environment"]["AIRFLOW_CONN_FSCORE_DEFAULT"])["meta"]
    (line,) = re.findall(r"exec fscore (fscore format .+)", text)
    asked = parsed(line.split())
    assert meta in asked.values()
    host = re.fullmatch(r"redis://(\w+):6379/1", meta)
    assert host is not None
    assert host[1] in compose["services"]
    assert host[1] in own["depends_on"]
    homes = [mount.partition(":")[2] for mount in own["volumes"]]
    assert any(str(asked["bucket"]).startswith(f"{home}/") for home in homes), "blocks outlive the container"
    assert {mount.partition(":")[0] for mount in own["volumes"]} <= set(compose["volumes"])


def test_the_pod_mounts_where_its_server_reads() -> None:
    spec = yaml.safe_load(POD.read_text())["spec"]
    sidecar, server = spec["initContainers"][0], spec["containers"][0]
    asked = parsed(sidecar["command"])
    plan = plan_of(asked)
    assert plan.asked["read_only"]
    assert plan.options.read_only
    assert plan.options.allow_other
    assert asked["volume"] == f"$({sidecar['env'][0]['name']})"
    mounts = {one["name"]: one for one in sidecar["volumeMounts"]}
    assert plan.mountpoint.is_relative_to(mounts["models"]["mountPath"])
    assert plan.mountpoint != Path(mounts["models"]["mountPath"]), "a mount below what is shared is passed on"
    assert plan.asked["cache_dir"] == mounts["cache"]["mountPath"]
    assert mounts["models"]["mountPropagation"] == "Bidirectional"
    assert Path(sidecar["startupProbe"]["exec"]["command"][-1]).parent == plan.mountpoint
    (seen,) = server["volumeMounts"]
    assert (seen["name"], seen["mountPropagation"]) == ("models", "HostToContainer")
    assert Path(server["args"][-1]).is_relative_to(plan.mountpoint)
    assert set(mounts) == {one["name"] for one in spec["volumes"]}
