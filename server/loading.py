"""From the setting `handlers` ("package.module:attribute") to the handlers it names."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

from server.handlers import Handlers
from server.settings import SettingsError


def load_handlers(where: str) -> Handlers:
    """Import the module and return its Handlers.

    Modules in the working directory are found too: it is put first into `sys.path`, as
    `python -m` does. Raises SettingsError when there is no such module, attribute or Handlers;
    what the module itself raises while it is imported comes through as it is.
    """
    module_name, _, attribute = where.partition(":")
    if not module_name or not attribute:
        raise SettingsError(
            f"handlers is {where!r} but must be MODULE:NAME, such as server.demo:handlers"
        )
    found: object = _import(module_name, where)
    module = found
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise SettingsError(
                f"handlers is {where!r}, but {module_name} has no {attribute!r}; {_offer(module)}"
            )
        found = getattr(found, name)
    if not isinstance(found, Handlers):
        raise SettingsError(
            f"handlers is {where!r}, but that is {type(found).__name__!r} and must be "
            f"server.Handlers; {_offer(module)}"
        )
    return found


def _import(name: str, where: str) -> ModuleType:
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, but not something it imports
        raise SettingsError(
            f"handlers is {where!r}, but there is no module {error.name!r} in {directory} "
            "or in what is installed"
        ) from error


def _offer(module: object) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Handlers)]
    return f"it has: {', '.join(names)}" if names else "it has no Handlers"
