"""What an installed distribution tells Airflow's provider manager: the connection type and the filesystem.

The plugin itself is not declared here: `plugins:` of a provider is not loaded by default.
"""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """The provider's description, as `provider_info.schema.json` of Airflow wants it."""
    return {
        "package-name": "fscore",
        "name": "fscore",
        "description": "A model repository on a JuiceFS-compatible filesystem core.",
        "connection-types": [
            {
                "connection-type": "fscore",
                "hook-class-name": "fscore_airflow.hooks.volume.VolumeHook",
                "hook-name": "fscore volume",
            },
        ],
        "filesystems": ["fscore_airflow.filesystem"],
    }
