"""The first step of a release: one look at everything that was asked, before anything expensive starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from fscore_airflow.operators.base import FscoreOperator, actor_of

if TYPE_CHECKING:
    from airflow.sdk import Context


class CheckRequest(FscoreOperator):
    """Reads the form, checks what no single field can (names, layouts, regions, volumes) and fills in defaults.

    :param form: the run's params; the current run's when left out.
    """

    template_fields: Sequence[str] = ("form",)

    def __init__(self, *, form: dict[str, Any] | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(multiple_outputs=True, **kwargs)
        self.form = form

    def execute(self, context: Context) -> dict[str, Any]:
        """The request in one dictionary, each value also under its own XCom key."""
        from fscore.hub.names import check_alias, parse_ref
        from fscore_airflow.hooks.volume import VolumeHook
        from fscore_airflow.refusals import refusals

        form = dict(context["params"]) if self.form is None else self.form
        with refusals():
            ref = parse_ref(f"{form['team']}/{form['model']}")
            if form.get("alias"):
                check_alias(form["alias"])
            if form.get("base"):
                parse_ref(form["base"])
            layouts = _layouts(form)
            home = VolumeHook(form["volume"])
            home.meta_url()
            regions = home.regions() if form.get("regions") is None else list(dict.fromkeys(form["regions"]))
            for region in regions:
                VolumeHook(region).meta_url()
        if form["volume"] in regions:
            raise AirflowFailException(f"region {form['volume']} is the volume of the release itself; leave it out")
        uploader = actor_of(context)
        if form.get("approvers") == [uploader]:
            raise AirflowFailException(f"{uploader} cannot approve what {uploader} uploads; name somebody else")
        warm = [form["volume"], *regions] if form.get("warm", True) else []
        request = {**form, "ref": str(ref), "layouts": layouts, "regions": regions, "warm": warm, "uploader": uploader}
        return self.tell(request)


def _layouts(form: dict[str, Any]) -> list[str]:
    """The layouts that were named, and the one that the TP, PP and EP fields describe."""
    from fscore.hub.names import layout_name, parse_layout

    numbers = [int(form.get(key) or 1) for key in ("tp", "pp", "ep")]
    named = [layout_name(*parse_layout(name)) for name in form.get("layouts") or []]
    if numbers != [1, 1, 1]:
        named.append(layout_name(*numbers))
    return list(dict.fromkeys(name for name in named if name != "tp1-pp1"))
