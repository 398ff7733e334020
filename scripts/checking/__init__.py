"""Decide from what clients and handlers saw whether the server kept its guarantees G1 to G5."""
