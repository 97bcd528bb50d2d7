"""`python -m fscore_airflow.standalone start|stop|status|run`."""

from __future__ import annotations

import sys

from fscore_airflow.standalone.cli import main

if __name__ == "__main__":
    sys.exit(main())
