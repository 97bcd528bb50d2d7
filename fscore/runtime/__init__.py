"""Clock, threads, limits, metrics and logs: the only place where time passes."""
