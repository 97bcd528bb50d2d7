"""The Airflow edge: operators, sensors, triggers, hook, timetable. Imports the core inside `execute`."""
