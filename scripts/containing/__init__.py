"""The parts of scripts/containers.py: build the image, run it, kill it, see what it does."""
