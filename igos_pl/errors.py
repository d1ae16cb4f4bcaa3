"""The exceptions that stand for what a person can mend."""


class IgosError(ValueError):
    """Bad input: says what was wrong, where, and what to do.

    The command line prints its message alone; anything else is a bug and keeps its traceback.

    Attributes:
        exit_code: of the command line.
    """

    exit_code = 2


class RunError(IgosError):
    """The input is right, but the run could not go on: a full disk, a dead rank. Run it again."""

    exit_code = 1
