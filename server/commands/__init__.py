"""The commands of `queuesystem`, one file each.

A command is a module: HELP, DESCRIPTION and EXAMPLES for its help text, `add` declares its
arguments, `run` does the work and returns the exit code.
"""
