"""The release suite in Great Expectations, over the three tables. The only module that imports it, and late.

Importing it costs seconds, so nothing else here may; it is never asked to call home.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

import msgspec

from fscore.hub.validate.policy import Expectations
from fscore.hub.validate.report import Check
from fscore.hub.validate.tables import Row, Tables

CRITICAL, WARNING = "critical", "warning"


class Line(msgspec.Struct, frozen=True):
    """One expectation: our name for the check, its weight, GX's class and arguments, and the column that says where."""

    name: str
    severity: str
    kind: str
    arguments: dict[str, Any]
    where: str = ""


def lines_for(policy: Expectations) -> dict[str, list[Line]]:
    """The suite, by table."""
    return {"tensors": _tensor_lines(policy), "files": _file_lines(policy), "model": _model_lines()}


def run_suite(tables: Tables, policy: Expectations) -> tuple[list[Check], dict[str, Any]]:
    """Judge the tables; returns our checks and what Great Expectations said."""
    checks: list[Check] = []
    said: dict[str, Any] = {}
    with _quiet():
        import great_expectations as gx
        import pandas as pd

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False, "metric_calculations": False}
        source = context.data_sources.add_pandas("model")
        for table, lines in lines_for(policy).items():
            rows: list[Row] = getattr(tables, table)
            if not rows:
                continue
            suite = context.suites.add(gx.ExpectationSuite(name=table))
            for line in lines:
                suite.add_expectation(getattr(gx.expectations, line.kind)(**line.arguments, severity=line.severity))
            batch = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("all")
            definition = context.validation_definitions.add(
                gx.ValidationDefinition(name=table, data=batch, suite=suite)
            )
            result = definition.run(batch_parameters={"dataframe": pd.DataFrame(rows)})
            results = _in_order(result.to_json_dict()["results"], lines)
            checks.extend(_check(table, line, one, rows) for line, one in zip(lines, results, strict=True))
            said[table] = {line.name: _numbers(one) for line, one in zip(lines, results, strict=True)}
    return checks, said


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Neither calls home nor passes its own deprecations and progress on: they are not about the model."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    log = logging.getLogger("great_expectations")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


def _in_order(results: list[dict[str, Any]], lines: list[Line]) -> list[dict[str, Any]]:
    """Match results to lines: the suite may run in another order, so by class and arguments."""
    left = list(results)
    ordered = []
    for line in lines:
        wanted = line.kind
        for one in left:
            config = one["expectation_config"]
            same_class = config["type"] == _snake(wanted)
            if same_class and all(config["kwargs"].get(key) == value for key, value in line.arguments.items()):
                left.remove(one)
                ordered.append(one)
                break
    return ordered


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


def _numbers(one: dict[str, Any]) -> dict[str, Any]:
    keep = ("element_count", "unexpected_count", "missing_count", "observed_value", "unexpected_percent")
    result = {key: value for key, value in one["result"].items() if key in keep}
    return {"success": bool(one["success"]), "type": one["expectation_config"]["type"], **result}


def _check(table: str, line: Line, one: dict[str, Any], rows: list[Row]) -> Check:
    name = f"{table}.{line.name}"
    if one["success"]:
        return Check(name, line.severity, success=True)
    if one.get("exception_info", {}).get("raised_exception"):
        return Check(name, line.severity, success=False, detail=one["exception_info"]["exception_message"])
    return Check(name, line.severity, success=False, detail=_detail(line, one, rows))


def _detail(line: Line, one: dict[str, Any], rows: list[Row]) -> str:
    indexes = one["result"].get("partial_unexpected_index_list") or []
    bad = [rows[index] for index in indexes if isinstance(index, int)]
    values = one["result"].get("partial_unexpected_list")
    if line.where and len(rows) == 1:
        return f"{line.where.removesuffix('_names')}: {rows[0][line.where]}"
    if line.where and bad:
        places = [str(row[line.where]) for row in bad[:3]]
        more = one["result"].get("unexpected_count", len(places)) - len(places)
        return ", ".join(places) + (f" and {more} more" if more > 0 else "")
    if values:
        return ", ".join(str(value) for value in values[:3])
    observed = one["result"].get("observed_value")
    return f"found {observed}" if observed is not None else ""


def _equal(a: str, b: str) -> dict[str, Any]:
    return {"column_A": a, "column_B": b, "ignore_row_if": "either_value_is_missing"}


def _zero(column: str) -> dict[str, Any]:
    return {"column": column, "value_set": [0]}


_PAIR, _SET, _UNIQUE = "ExpectColumnPairValuesToBeEqual", "ExpectColumnValuesToBeInSet", "ExpectColumnValuesToBeUnique"
_BETWEEN, _NULL = "ExpectColumnValuesToBeBetween", "ExpectColumnValuesToBeNull"


def _tensor_lines(policy: Expectations) -> list[Line]:
    largest = {"column": "absmax", "max_value": policy.largest, "mostly": 0.999}
    zeros = {"column": "zero_fraction", "max_value": policy.zeros, "mostly": 0.95}
    distinct = {"column": "xxh3", "min_value": policy.distinct}
    return [
        Line("name_unique", CRITICAL, _UNIQUE, {"column": "name"}, "name"),
        Line("placed_by_index", CRITICAL, _PAIR, _equal("file", "file_indexed"), "name"),
        Line("bytes_match_shape", CRITICAL, _PAIR, _equal("nbytes", "nbytes_expected"), "name"),
        Line("contiguous", CRITICAL, _SET, _zero("gap"), "name"),
        Line("dtype_allowed", CRITICAL, _SET, {"column": "dtype", "value_set": list(policy.dtypes)}, "name"),
        Line("shape_matches_config", CRITICAL, _PAIR, _equal("shape", "shape_expected"), "name"),
        Line("no_nan", CRITICAL, _SET, _zero("nan"), "name"),
        Line("no_infinity", CRITICAL, _SET, _zero("inf"), "name"),
        Line("magnitudes", WARNING, _BETWEEN, largest, "name"),
        Line("not_mostly_zero", WARNING, _BETWEEN, zeros, "name"),
        Line("distinct", WARNING, "ExpectColumnProportionOfUniqueValuesToBeBetween", distinct),
    ]


def _file_lines(policy: Expectations) -> list[Line]:
    unsafe = {"column": "path", "regex": r"(^|/)(\.\.|\.git)(/|$)|^/|\\|\.tmp$|\.part$|\.incomplete$"}
    return [
        Line("path_unique", CRITICAL, _UNIQUE, {"column": "path"}, "path"),
        Line("path_safe", CRITICAL, "ExpectColumnValuesToNotMatchRegex", unsafe, "path"),
        Line("present", CRITICAL, _SET, {"column": "present", "value_set": [1]}, "path"),
        Line("readable", CRITICAL, _NULL, {"column": "broken"}, "broken"),
        Line("weights_not_empty", CRITICAL, _BETWEEN, {"column": "weight_size", "min_value": 1}, "path"),
        Line("no_pickle", WARNING if policy.allow_pickle else CRITICAL, _SET, _zero("pickle"), "path"),
        Line("pickles_inert", CRITICAL, _SET, _zero("pickle_globals"), "path"),
        Line("no_program", CRITICAL, _SET, _zero("program"), "path"),
        Line("no_remote_code", WARNING if policy.allow_remote_code else CRITICAL, _SET, _zero("remote_code"), "path"),
    ]


def _model_lines() -> list[Line]:
    return [
        Line("vocabulary_matches_config", CRITICAL, _PAIR, _equal("vocab_config", "vocab_embedding")),
        Line("width_matches_config", CRITICAL, _PAIR, _equal("hidden_config", "hidden_embedding")),
        Line("layers_match_config", CRITICAL, _PAIR, _equal("layers_config", "layers_found")),
        Line("has_weights", CRITICAL, _BETWEEN, {"column": "weights", "min_value": 1}),
        Line("no_tensor_missing", CRITICAL, _SET, _zero("missing"), "missing_names"),
        Line("no_tensor_unexpected", WARNING, _SET, _zero("unexpected"), "unexpected_names"),
        Line("tokens_fit", CRITICAL, _SET, _zero("tokens_outside")),
        Line("index_total", WARNING, _PAIR, _equal("index_total", "tensor_bytes")),
        Line("family_known", WARNING, "ExpectColumnValuesToNotBeNull", {"column": "family"}, "model_type"),
    ]
