"""When this process began: imported before everything that takes long to load."""

import time
from typing import Final

BEGAN: Final = time.monotonic()
