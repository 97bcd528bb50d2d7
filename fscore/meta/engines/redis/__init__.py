"""The volume format's Redis layout; the only door to the `redis` package."""
