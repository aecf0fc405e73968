"""The command line: what a person or a script at a terminal sees of a database, and does to it.

Each command is a module with ``NAME``, ``HELP``, ``add_options(parser)`` and ``run(asked)``; the
table of them is in ``command``. Commands that only look use no event loop, no runner and no lasting
connection: an ``Onlooker`` opens the file for each look. Nothing is printed but through a
``Screen``, which escapes what could move a cursor.
"""
