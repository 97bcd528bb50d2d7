"""The timetable: always before the deadline, through daylight saving, skip dates and missed windows."""

from __future__ import annotations

import pendulum
import pytest
from airflow.exceptions import AirflowTimetableInvalid
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from hypothesis import given
from hypothesis import strategies as st

from fscore_airflow.timetables import BeforeScaleUp

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe", "Pacific/Apia"]


def following(timetable: BeforeScaleUp, start: pendulum.DateTime, count: int) -> list[DataInterval]:
    """The next `count` windows from `start`, as a catching-up scheduler asks for them."""
    found: list[DataInterval] = []
    last: DataInterval | None = None
    for _ in range(count):
        restriction = TimeRestriction(earliest=start, latest=None, catchup=True)
        info = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        assert info is not None
        assert info.data_interval is not None
        assert info.run_after == info.data_interval.start
        last = info.data_interval
        found.append(last)
    return found


@given(
    zone=st.sampled_from(ZONES),
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
    lead=st.integers(1, 1439),
    day=st.integers(0, 3000),
    weekdays=st.sets(st.integers(0, 6), min_size=1),
)
def test_every_window_ends_at_the_wall_clock_scale_up(
    zone: str, hour: int, minute: int, lead: int, day: int, weekdays: set[int]
) -> None:
    """Lead, weekday and wall-clock time hold in every zone, and windows go forward."""
    timetable = BeforeScaleUp(f"{hour:02d}:{minute:02d}", lead, zone, tuple(weekdays))
    timetable.validate()
    start = pendulum.datetime(2024, 1, 1).add(days=day)
    before = start
    for window in following(timetable, start, 12):
        local = window.end.in_timezone(zone)
        expected = pendulum.datetime(local.year, local.month, local.day, hour, minute, tz=zone)
        assert window.end == expected or (local.hour, local.minute) == (hour, minute)
        assert (window.end - window.start).total_seconds() == lead * 60
        assert window.start >= start
        assert window.end > before
        assert local.weekday() in weekdays or expected.weekday() in weekdays
        before = window.end


def test_daylight_saving_keeps_the_wall_clock() -> None:
    """08:30 in Berlin is 07:30 UTC in winter and 06:30 UTC in summer."""
    timetable = BeforeScaleUp("08:30", 45, "Europe/Berlin", tuple(range(7)))
    ends = [window.end for window in following(timetable, pendulum.datetime(2026, 3, 28), 2)]
    assert ends == [pendulum.datetime(2026, 3, 28, 7, 30), pendulum.datetime(2026, 3, 29, 6, 30)]


def test_a_skipped_hour_does_not_lose_the_day() -> None:
    """02:30 does not exist on the day the clocks go forward; the scale-up still has a run."""
    timetable = BeforeScaleUp("02:30", 30, "Europe/Berlin", tuple(range(7)))
    days = [
        window.end.in_timezone("Europe/Berlin").date()
        for window in following(timetable, pendulum.datetime(2026, 3, 27, 12), 3)
    ]
    assert [day.day for day in days] == [28, 29, 30]


def test_skip_dates_are_dates_of_the_zone() -> None:
    """The day that is skipped begins and ends where the cluster is."""
    timetable = BeforeScaleUp("00:10", 30, "Asia/Shanghai", tuple(range(7)), ("2026-10-01", "2026-10-02"))
    ends = [
        window.end.in_timezone("Asia/Shanghai").to_date_string()
        for window in following(timetable, pendulum.datetime(2026, 9, 29, 12), 2)
    ]
    assert ends == ["2026-09-30", "2026-10-03"]


def test_without_catchup_a_missed_window_is_left_out_and_a_live_one_starts_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A deadline that has passed is no use; one that is ahead still is."""
    timetable = BeforeScaleUp("08:00", 60, "UTC", tuple(range(7)))
    old = DataInterval(pendulum.datetime(2026, 5, 1, 7), pendulum.datetime(2026, 5, 1, 8))
    restriction = TimeRestriction(earliest=None, latest=None, catchup=False)

    def ask(now: pendulum.DateTime) -> DagRunInfo | None:
        monkeypatch.setattr("fscore_airflow.timetables.pendulum.now", lambda *_: now)
        return timetable.next_dagrun_info(last_automated_data_interval=old, restriction=restriction)

    live = ask(pendulum.datetime(2026, 6, 10, 7, 30))
    next_day = ask(pendulum.datetime(2026, 6, 10, 8, 30))
    assert live is not None
    assert live.run_after == pendulum.datetime(2026, 6, 10, 7)
    assert next_day is not None
    assert next_day.run_after == pendulum.datetime(2026, 6, 11, 7)


def test_the_end_of_the_dag_ends_the_runs() -> None:
    """No window starts after the DAG's end date."""
    timetable = BeforeScaleUp("08:00", 60, "UTC", tuple(range(7)))
    restriction = TimeRestriction(
        earliest=pendulum.datetime(2026, 1, 1, 9), latest=pendulum.datetime(2026, 1, 2, 6), catchup=True
    )
    assert timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction) is None


def test_a_manual_run_prepares_the_next_scale_up() -> None:
    """Its data interval ends at the deadline that is ahead."""
    timetable = BeforeScaleUp("08:30", 45, "UTC")
    friday_noon = pendulum.datetime(2026, 1, 2, 12)
    window = timetable.infer_manual_data_interval(run_after=friday_noon)
    assert window == DataInterval(friday_noon, pendulum.datetime(2026, 1, 5, 8, 30))


def test_it_survives_the_database() -> None:
    """Serialized and read back it plans the same."""
    timetable = BeforeScaleUp("08:30", 45, "Asia/Shanghai", (0, 2), ("2026-10-01",))
    again = BeforeScaleUp.deserialize(timetable.serialize())
    assert again.serialize() == timetable.serialize()
    assert again.summary == timetable.summary == "08:30 - 45m Asia/Shanghai"
    assert "45 min before 08:30 Asia/Shanghai on Mon,Wed" in again.description


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("25:00", 45, "UTC"), "25:00"),
        (("08:30", 0, "UTC"), "lead_minutes"),
        (("08:30", 45, "Mars/Olympus"), "Mars/Olympus"),
        (("08:30", 45, "UTC", (7,)), "weekdays"),
        (("08:30", 45, "UTC", ()), "weekdays"),
        (("08:30", 45, "UTC", (0,), ("soon",)), "soon"),
    ],
)
def test_what_can_never_run_is_refused(arguments: tuple[object, ...], says: str) -> None:
    """One line that names the mistake, when the DAG is parsed."""
    with pytest.raises(AirflowTimetableInvalid, match=says):
        BeforeScaleUp(*arguments).validate()  # type: ignore[arg-type]
