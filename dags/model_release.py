"""Release one model: acquire, validate, push a draft, split, ask, publish, copy to the regions, warm.

The split follows the push because a layout is composed of the draft's own bytes in the volume.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, chain, task

from fscore_airflow.operators.acquire import AcquireModel, ValidateModel
from fscore_airflow.operators.approval import ApprovalGate
from fscore_airflow.operators.publish import PublishVersion, PushModel, SplitVersion
from fscore_airflow.operators.regions import SyncVersion, WarmVersion
from fscore_airflow.operators.release import CheckRequest
from fscore_airflow.operators.workspace import PrepareWorkspace, RemoveWorkspace

NAME = "^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"
LAYOUT = "^tp[1-9][0-9]*-pp[1-9][0-9]*(-ep[1-9][0-9]*)?$"
PATTERNS = {"type": "array", "items": {"type": "string", "minLength": 1}}

PARAMS = {
    "source": Param(
        type="string",
        minLength=1,
        title="Source",
        description="A directory, hf://org/name@revision, s3://bucket/prefix or fscore://volume/path.",
        section="Model",
    ),
    "team": Param(type="string", pattern=NAME, title="Team", section="Model"),
    "model": Param(type="string", pattern=NAME, title="Model", section="Model"),
    "purpose": Param("", type="string", title="Purpose", description="What it is for.", section="Model"),
    "description": Param("", type="string", format="multiline", title="Description", section="Model"),
    "base": Param(None, type=["null", "string"], title="Base", description="team/model@version.", section="Model"),
    "alias": Param(
        None,
        type=["null", "string"],
        pattern=NAME,
        title="Alias",
        description="Points at this version once it is published.",
        section="Model",
    ),
    "include": Param([], **PATTERNS, title="Include", description="Patterns; empty takes all.", section="Files"),
    "exclude": Param([], **PATTERNS, title="Exclude", description="Patterns.", section="Files"),
    "allow_pickle": Param(
        False,
        type="boolean",
        title="Allow pickles",
        description="They are never executed here, but whoever loads them executes them.",
        section="Files",
    ),
    "tp": Param(1, type="integer", minimum=1, maximum=1024, title="Tensor parallel", section="Layouts"),
    "pp": Param(1, type="integer", minimum=1, maximum=1024, title="Pipeline parallel", section="Layouts"),
    "ep": Param(1, type="integer", minimum=1, maximum=1024, title="Expert parallel", section="Layouts"),
    "layouts": Param(
        [],
        type="array",
        items={"type": "string", "pattern": LAYOUT},
        title="More layouts",
        description="For example tp8-pp1.",
        section="Layouts",
    ),
    "volume": Param("fscore_default", type="string", minLength=1, title="Volume", section="Places"),
    "regions": Param(
        None,
        type=["null", "array"],
        items={"type": "string", "minLength": 1},
        title="Regions",
        description="Connections of the volumes to copy to; none given: those of the volume's connection.",
        section="Places",
    ),
    "warm": Param(True, type="boolean", title="Warm the caches", section="Places"),
    "approvers": Param(
        [],
        type="array",
        items={"type": "string", "minLength": 1},
        title="Approvers",
        description="Who may decide; none given: anyone but the uploader.",
        section="Approval",
    ),
}

ASK = """\
**{{ params.purpose or 'no purpose given' }}**

- source: `{{ params.source }}`
- digest: `{{ ti.xcom_pull(task_ids='push')['digest'] }}`
- {{ ti.xcom_pull(task_ids='push')['files'] }} files, {{ ti.xcom_pull(task_ids='push')['tensors'] }} tensors,
  {{ ti.xcom_pull(task_ids='push')['bytes_total'] }} bytes ({{ ti.xcom_pull(task_ids='push')['bytes_new'] }} new)
- layouts: {{ ti.xcom_pull(task_ids='request', key='layouts') | join(', ') or 'none' }}
- validation: {{ ti.xcom_pull(task_ids='validate')['checks'] }} checks,
  {{ ti.xcom_pull(task_ids='validate')['warnings'] | length }} warnings

{{ params.description }}
"""


@task
def layouts(request: dict[str, Any]) -> list[str]:
    """One split for each."""
    return list(request["layouts"])


@task
def regions(request: dict[str, Any]) -> list[str]:
    """One copy for each."""
    return list(request["regions"])


@task
def places(request: dict[str, Any]) -> list[str]:
    """One warm-up for each."""
    return list(request["warm"])


with DAG(
    "model_release",
    description="Acquire, validate, push, split, approve, publish, copy, warm",
    schedule=None,
    params=PARAMS,
    max_active_runs=8,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10), "owner": "fscore"},
    tags=["fscore", "model"],
    doc_md=__doc__,
):
    request = CheckRequest(task_id="request")
    workspace = PrepareWorkspace(task_id="workspace").as_setup()
    acquire = AcquireModel(
        task_id="acquire",
        uri=request.output["source"],
        workspace=workspace.output,
        include=request.output["include"],
        exclude=request.output["exclude"],
        allow_pickle=request.output["allow_pickle"],
    )
    validate = ValidateModel(
        task_id="validate",
        acquired=acquire.output,
        workspace=workspace.output,
        allow_pickle=request.output["allow_pickle"],
    )
    push = PushModel(
        task_id="push",
        volume="{{ params.volume }}",
        acquired=acquire.output,
        ref=request.output["ref"],
        validation=validate.output["result"],
        purpose="{{ params.purpose }}",
        description="{{ params.description }}",
        base=request.output["base"],
        alias=request.output["alias"],
        allow_pickle=request.output["allow_pickle"],
        uploader=request.output["uploader"],
    )
    split = SplitVersion.partial(
        task_id="split",
        volume="{{ params.volume }}",
        ref=push.output["ref"],
        actor=request.output["uploader"],
        pool="split",
        map_index_template="{{ label }}",
    ).expand(layout=layouts(request.output))
    approve = ApprovalGate(
        task_id="approve",
        volume="{{ params.volume }}",
        ref=push.output["ref"],
        digest=push.output["digest"],
        approvers=request.output["approvers"],
        uploader=request.output["uploader"],
        subject="Release {{ ti.xcom_pull(task_ids='push')['ref'] }}?",
        body=ASK,
        response_timeout=timedelta(days=14),
        trigger_rule="none_failed",
    )
    publish = PublishVersion(
        task_id="publish",
        volume="{{ params.volume }}",
        ref=push.output["ref"],
        alias=request.output["alias"],
        actor=request.output["uploader"],
    )
    sync = SyncVersion.partial(
        task_id="sync",
        volume="{{ params.volume }}",
        ref=push.output["ref"],
        pool="xcloud",
        map_index_template="{{ label }}",
    ).expand(region=regions(request.output))
    warm = WarmVersion.partial(
        task_id="warm",
        ref=push.output["ref"],
        pool="warm",
        map_index_template="{{ label }}",
        trigger_rule="none_failed",
    ).expand(volume=places(request.output))
    cleanup = RemoveWorkspace(task_id="cleanup").as_teardown(setups=workspace)
    chain(request, workspace, acquire, validate, push, split, approve, publish, sync, warm)
    chain(push, cleanup)
