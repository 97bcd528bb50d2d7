"""One seam between the core's errors and Airflow's: what a retry cannot mend fails at once, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowFailException


@contextmanager
def refusals() -> Iterator[None]:
    """Raise AirflowFailException for a refusal; what may pass by itself stays as it is and is retried."""
    from fscore.domain.errors import CorruptError, FsError, HubError, NoSpace, SettingError, Stale

    try:
        yield
    except HubError as error:
        if error.kind == "conflict":
            raise
        raise AirflowFailException(str(error)) from error
    except (NoSpace, Stale):
        raise
    except (SettingError, CorruptError, FsError) as error:
        raise AirflowFailException(str(error)) from error
