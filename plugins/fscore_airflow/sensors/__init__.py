"""Waiting for something outside Airflow."""
