"""The one exception that is a message to the user rather than a bug."""

from __future__ import annotations

import importlib.util

from pydantic import ValidationError

from firstfault.text import one_line


class UserError(Exception):
    """Bad input or a full disk: one sentence that says what was given, what was expected and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


def what_is_wrong(error: Exception) -> str:
    """The first thing that pydantic found: where it is, what was given, and what it should be; of others, their words.

    >>> from pydantic import TypeAdapter
    >>> try:
    ...     TypeAdapter(dict[str, int]).validate_python({"steps": "many"})
    ... except ValidationError as error:
    ...     what_is_wrong(error)
    "steps = 'many': input should be a valid integer, unable to parse string as an integer"
    """
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{place} is missing"
    message = first["msg"].removeprefix("Value error, ")
    given = f"{place} = {one_line(repr(first['input']))}: " if place else ""
    return f"{given}{message[0].lower()}{message[1:]}"


def require(module: str, extra: str, what: str, instead: str = "") -> None:
    """Refuse `what` where a module of one of firstfault's extras is not installed; `instead` would do without it.

    >>> require("no_such", "extra", "this", instead="use another")
    Traceback (most recent call last):
    firstfault.errors.UserError: this needs no-such; install it with pip install 'firstfault[extra]', or use another.
    """
    if importlib.util.find_spec(module) is None:
        package, other = module.replace("_", "-"), f", or {instead}" if instead else ""
        raise UserError(f"{what} needs {package}; install it with pip install 'firstfault[{extra}]'{other}.")
