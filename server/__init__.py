"""queueSystem's server. What a module of handlers needs is importable from here."""

from server.boot import BEGAN as BEGAN
from server.handlers import Handlers
from server.request import Request, RequestError

__all__ = ["Handlers", "Request", "RequestError"]
