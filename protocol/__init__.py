"""The wire protocol `queuesystem.v1` and its asyncio client. Knows nothing of `server`."""
