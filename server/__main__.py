"""`python -m server` is `queuesystem`."""

import sys

from server.cli import main

if __name__ == "__main__":  # processes of the pool import this module too
    sys.exit(main())
