"""The one exception that is a message to the user rather than a bug."""

from __future__ import annotations

import importlib.util


class UserError(Exception):
    """Bad input or a full disk: one sentence that says what was given, what was expected and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


def require(module: str, extra: str, what: str, instead: str = "") -> None:
    """Refuse `what` where a module of one of firstfault's extras is not installed; `instead` would do without it.

    >>> require("no_such", "extra", "this", instead="use another")
    Traceback (most recent call last):
    firstfault.errors.UserError: this needs no-such; install it with pip install 'firstfault[extra]', or use another.
    """
    if importlib.util.find_spec(module) is None:
        package, other = module.replace("_", "-"), f", or {instead}" if instead else ""
        raise UserError(f"{what} needs {package}; install it with pip install 'firstfault[{extra}]'{other}.")
