"""How long Hypothesis looks: 60 examples, 300 with HYPOTHESIS_PROFILE=ci, 5,000 at night (`nightly`)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

for name, examples in (("dev", 60), ("ci", 300), ("nightly", 5000)):
    settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "dev")
