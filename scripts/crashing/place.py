"""Where clients find the server: who listens there now, and who just moved."""

import asyncio


class Place:
    """The port and the name of the server that clients are to use; `open` while one listens."""

    def __init__(self) -> None:
        self.port = 0
        self.server = ""
        self.open = asyncio.Event()
