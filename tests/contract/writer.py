"""A process that appends until it is killed: `python -m tests.contract.writer KIND URL`.

Prints each seq once its append has returned.
"""

import asyncio
import itertools
import sys

from tests.contract.backends import open_kind

OWNER = "writer"


def data(seq: int) -> bytes:
    """Return what commit `seq` holds."""
    return b"%d " % seq * 100


async def main(kind: str, url: str) -> None:
    store = await open_kind(kind, url)
    for seq in itertools.count(1):
        await store.log.append(OWNER, seq, data(seq))
        sys.stdout.write(f"{seq}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
