"""The volume format's SQL layout; the only door to SQLAlchemy."""
