"""Restarts of a server under the load of real clients, timed and judged (scripts/restarts.py)."""
