"""The release checks: tables of tensors, files and configuration, judged by Great Expectations.

Way in: `run.validate(source)`. `scan` looks at every number once, `tables` arranges, `suite` judges, `report` keeps.
"""
