"""The crash test: a server under load that is killed over and over, and what it must still keep."""
