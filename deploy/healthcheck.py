"""HEALTHCHECK of the image: exit code 0 when the server of this container answers /livez."""

import http.client
import os
import sys

TIMEOUT_SECONDS = 4

_EVERY_ADDRESS = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not bound to


def main() -> None:
    host = os.environ["QUEUESYSTEM_HOST"]
    connection = http.client.HTTPConnection(
        "127.0.0.1" if host in _EVERY_ADDRESS else host,
        int(os.environ["QUEUESYSTEM_PORT"]),
        timeout=TIMEOUT_SECONDS,
    )
    try:
        connection.request("GET", "/livez")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"/livez does not answer: {error}")
    if status != http.client.OK:
        sys.exit(f"/livez answers {status}")


if __name__ == "__main__":
    main()
