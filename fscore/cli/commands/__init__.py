"""One file a command: `command` is what the shell calls, `EXAMPLES` what its help shows."""
