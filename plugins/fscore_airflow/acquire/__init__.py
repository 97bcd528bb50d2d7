"""Where models come from: this machine, a Hugging Face hub, S3, a volume. Brings them to where a task can read them.

`select` decides which files are meant (pure), `fetch` brings remote ones into the workspace, `source` opens the result.
"""
