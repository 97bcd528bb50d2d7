"""Airflow on one machine: a private home, the four mains, clean start and clean stop.

`home` writes the configuration, `seed` fills the metadata database, `supervisor` owns the processes,
`api` speaks REST with what runs. Nothing here knows models.
"""
