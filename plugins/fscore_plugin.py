"""The one file that Airflow scans in this folder: registers the plugin, unless the installed package does.

Two registrations of one name lose every later plugin in task processes. So a folder that was copied
next to an Airflow registers here, and an installed distribution registers through its `airflow.plugins`
entry point, also when both are present.
"""

from __future__ import annotations

from importlib.metadata import entry_points

if not any(point.name == "fscore" for point in entry_points(group="airflow.plugins")):
    from fscore_airflow.plugin import FscorePlugin

    __all__ = ["FscorePlugin"]
