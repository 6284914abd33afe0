"""Python files of the user's own: classes named on the command line, and functions and objects as tools."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType

from firstfault.errors import UserError
from firstfault.tools.base import Tool, describe
from firstfault.tools.functions import FunctionTool, ObjectTool


def tools_from(name: str) -> list[Tool]:
    """The tools of a Python file.

    Args:
        name: "my_tools.py" for every public function with a docstring that the file defines; "my_tools.py:Name" for
            an object of that class, made without arguments (see `ObjectTool`), or for a `Tool` of the user's own.

    Raises:
        UserError: if there are none, or something is missing that a tool needs.
    """
    if name.endswith(".py"):
        module = load_file(name, name)
        functions = [
            value
            for key, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not key.startswith("_")
        ]
        tools = [FunctionTool(function) for function in functions if function.__doc__]
        if not tools:
            raise UserError(f"{name} defines no public function with a docstring, so it has no tools; write one.")
        return tools
    cls = own_class(name, object)
    try:
        made = cls()
    except Exception as error:
        reason = describe(error).rstrip(".")
        raise UserError(f"{name}: {cls.__name__}() fails with {reason}; it must work without arguments.") from error
    return [made if isinstance(made, Tool) else ObjectTool(made)]


def own_class(name: str, base: type) -> type:
    """The class that "path/to/file.py:ClassName" names.

    Raises:
        UserError: if there is none derived from `base`.
    """
    path, _, attribute = name.rpartition(":")
    found = getattr(load_file(path, name), attribute, None)
    if not isinstance(found, type) or not issubclass(found, base):
        of = "" if base is object else f" derived from {base.__name__}"
        raise UserError(f"{name}: {path} has no class {attribute!r}{of}.")
    return found


def load_file(path: str, name: str) -> ModuleType:
    """Run a Python file as a module, unless that was done since it was written. `name` is the user's, for errors.

    Raises:
        UserError: if there is no such file, or it fails.
    """
    file = Path(path).resolve()
    # named by its path, which nobody imports: a user's random.py must not become everybody's
    spec = importlib.util.spec_from_file_location(str(file), file)
    if spec is None or spec.loader is None or not file.is_file():
        form = "path/to/file.py" if path == name else "path/to/file.py:ClassName"
        raise UserError(f"{name}: there is no Python file {path!r}; write {form}.")
    written = file.stat().st_mtime_ns
    module = sys.modules.get(str(file))
    if module is not None and module.__dict__.get("__written__") == written:
        return module  # a class is the same one wherever it is named
    module = importlib.util.module_from_spec(spec)
    module.__written__ = written
    sys.modules[module.__name__] = module  # where pydantic looks up what annotations name
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        place = f"line {lines[-1]} of {path}" if lines else f"the import of {path}"
        reason = describe(error).rstrip(".")
        raise UserError(f"{name}: {place} fails with {reason}.") from error
    return module
