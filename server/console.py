"""The files of the web console: read once, served from memory, each under one fixed path.

    /            server/web/index.html          /client.js   protocol/client.js
    /NAME        server/web/NAME

No path of a request ever becomes a path of a file.
"""

import hashlib
from pathlib import Path
from typing import Final

from msgspec import Struct

_WEB: Final = Path(__file__).parent / "web"
_CLIENT: Final = Path(__file__).parents[1] / "protocol/client.js"
_SCRIPT: Final = "text/javascript; charset=utf-8"
_FILES: Final = {
    "/": (_WEB / "index.html", "text/html; charset=utf-8"),
    "/console.css": (_WEB / "console.css", "text/css; charset=utf-8"),
    "/icon.svg": (_WEB / "icon.svg", "image/svg+xml"),
    "/console.js": (_WEB / "console.js", _SCRIPT),
    "/login.js": (_WEB / "login.js", _SCRIPT),
    "/methods.js": (_WEB / "methods.js", _SCRIPT),
    "/requests.js": (_WEB / "requests.js", _SCRIPT),
    "/client.js": (_CLIENT, _SCRIPT),
}

HEADERS: Final = {
    # Nothing but these files and this server: no inline script or style, no frame, no other host,
    # and no text that becomes markup.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # A page and its scripts are of one version: the server is asked each time.
    "Cache-Control": "no-cache",
}
"""Headers of each of these files."""


class StaticFile(Struct, frozen=True):
    """A file as it is served; `etag` (RFC 9110 section 8.8.3) is made of its content."""

    content_type: str
    body: bytes
    etag: str


def console_files() -> dict[str, StaticFile]:
    """Read the console, by the path under which each file is served.

    Raises OSError when one is missing, which is an installation that is not whole.
    """
    return {path: _read(file, content_type) for path, (file, content_type) in _FILES.items()}


def _read(file: Path, content_type: str) -> StaticFile:
    body = file.read_bytes()
    return StaticFile(content_type, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
