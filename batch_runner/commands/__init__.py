"""One module a command, named as the command is; each has `execute`: arguments in, exit code out.

Imported when its command is asked for, and not before: `--help` must not wait for aiohttp.
"""
