"""`python -m fscore_airflow.demo [--keep] [--all]`."""

from __future__ import annotations

import sys

from fscore_airflow.demo.cli import main

if __name__ == "__main__":
    sys.exit(main())
