"""The release checks: tables of tensors, files and configuration, judged by Great Expectations."""
