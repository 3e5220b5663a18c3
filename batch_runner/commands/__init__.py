"""One module per command, named after it: `declare` adds its options, `execute` runs it.

`Arguments` has what was given. A command's module is imported only when the command is used:
`--help` must not wait for aiohttp.
"""
