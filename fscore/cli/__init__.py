"""The command line, one file a command: parse, call one function of the floors below, show its report.

The way in is `fscore.cli.main:main`. Each module of `commands` holds one function `command`; `options` names what
commands have in common, `output` and `progress` show, `errors` maps the error tree to one line and an exit code.
Commands speak paths and model references; they know no inode, no record and no block.
"""
