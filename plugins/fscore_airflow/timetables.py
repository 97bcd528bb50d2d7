"""When a warm-up must start so that it is complete before a daily scale-up. Pure: runs in the scheduler."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pendulum
from airflow.exceptions import AirflowTimetableInvalid
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
# A zone that skips an hour shifts a deadline within its day; more days than this without one cannot be.
_HORIZON = 3660


class BeforeScaleUp(Timetable):
    """A run `lead_minutes` before the wall-clock time `scale_up` in `zone`; its data interval ends at the scale-up.

    :param scale_up: wall-clock time "HH:MM" at which the cluster grows.
    :param lead_minutes: how long before it the run starts.
    :param zone: IANA name of the time zone; daylight saving is followed.
    :param weekdays: days of the scale-up, Monday is 0.
    :param skip_dates: dates ("YYYY-MM-DD", in `zone`) without a scale-up.
    """

    def __init__(
        self,
        scale_up: str,
        lead_minutes: int,
        zone: str = "UTC",
        weekdays: tuple[int, ...] | list[int] = (0, 1, 2, 3, 4),
        skip_dates: tuple[str, ...] | list[str] = (),
    ) -> None:
        self.scale_up = scale_up
        self.lead_minutes = lead_minutes
        self.zone = zone
        self.weekdays = tuple(sorted(set(weekdays)))
        self.skip_dates = tuple(sorted(set(skip_dates)))
        days = ",".join(_DAYS[day] for day in self.weekdays if 0 <= day < len(_DAYS))
        self.description = f"{lead_minutes} min before {scale_up} {zone} on {days}"

    @property
    def summary(self) -> str:
        """What the list of DAGs shows."""
        return f"{self.scale_up} - {self.lead_minutes}m {self.zone}"

    def serialize(self) -> dict[str, Any]:
        """As the metadata database keeps it."""
        return {
            "scale_up": self.scale_up,
            "lead_minutes": self.lead_minutes,
            "zone": self.zone,
            "weekdays": list(self.weekdays),
            "skip_dates": list(self.skip_dates),
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> BeforeScaleUp:
        """The inverse of `serialize`."""
        return cls(**data)

    def validate(self) -> None:
        """Refuse what could never run, with one clear line."""
        try:
            self._clock_time()
            pendulum.timezone(self.zone)
            for day in self.skip_dates:
                dt.date.fromisoformat(day)
        except (ValueError, KeyError) as error:
            raise AirflowTimetableInvalid(f"BeforeScaleUp: {error}") from error
        if not 0 < self.lead_minutes < 24 * 60:
            raise AirflowTimetableInvalid("BeforeScaleUp: lead_minutes must be between 1 and 1439")
        if not self.weekdays or not set(self.weekdays) <= set(range(7)):
            raise AirflowTimetableInvalid("BeforeScaleUp: weekdays must be some of 0 (Monday) to 6 (Sunday)")

    def infer_manual_data_interval(self, *, run_after: pendulum.DateTime) -> DataInterval:
        """A manual run prepares the next scale-up."""
        deadline = self._deadline_from(run_after)
        return DataInterval(start=min(run_after, deadline), end=deadline)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The next window; without catchup a window whose deadline has passed is left out, a live one starts late."""
        if last_automated_data_interval is not None:
            after = last_automated_data_interval.end.add(microseconds=1)
        elif restriction.earliest is not None:
            # `earliest` bounds the start of a run, so the first deadline is at least one lead after it.
            after = restriction.earliest.add(minutes=self.lead_minutes)
        else:
            after = None
        if not restriction.catchup:
            now = pendulum.now("UTC")
            after = now if after is None else max(after, now)
        if after is None:
            return None
        deadline = self._deadline_from(after)
        start = deadline.subtract(minutes=self.lead_minutes)
        if restriction.latest is not None and start > restriction.latest:
            return None
        return DagRunInfo(run_after=start, data_interval=DataInterval(start=start, end=deadline))

    def _deadline_from(self, moment: pendulum.DateTime) -> pendulum.DateTime:
        """The first scale-up at or after `moment`, in UTC."""
        clock = self._clock_time()
        # One day back: a time that the zone skips moves forward, never by a whole day.
        day = moment.in_timezone(self.zone).date().subtract(days=1)
        for _ in range(_HORIZON):
            if day.weekday() in self.weekdays and day.isoformat() not in self.skip_dates:
                local = pendulum.datetime(day.year, day.month, day.day, clock.hour, clock.minute, tz=self.zone)
                deadline = local.in_timezone("UTC")
                if deadline >= moment:
                    return deadline
            day = day.add(days=1)
        raise AirflowTimetableInvalid("BeforeScaleUp: every day of the next ten years is a skip date")

    def _clock_time(self) -> dt.time:
        return dt.datetime.strptime(self.scale_up, "%H:%M").time()  # noqa: DTZ007
