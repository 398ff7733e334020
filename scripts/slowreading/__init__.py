"""The parts of scripts/slow_consumers.py."""
