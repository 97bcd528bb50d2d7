"""What the plugin registers. Every Airflow process imports this module: it stays light."""

from __future__ import annotations

from typing import ClassVar

from airflow.plugins_manager import AirflowPlugin

from fscore_airflow.timetables import BeforeScaleUp


class FscorePlugin(AirflowPlugin):
    """The timetable; operators, hook and triggers are imported by name."""

    name = "fscore"
    timetables: ClassVar[list[type]] = [BeforeScaleUp]
