"""The one exception that is a message to the user rather than a bug."""


class UserError(Exception):
    """Bad input or a full disk: one sentence that says what was given, what was expected and what to do.

    The command line prints it without a traceback and exits with code 2.
    """
