"""The reference engine: records in this process. `engine` is the way in, `records` what it keeps."""
