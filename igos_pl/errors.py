"""The one exception that stands for a mistake a person can mend."""


class IgosError(ValueError):
    """Bad input: says what was wrong, where, and what to do.

    The command line prints its message alone; anything else is a bug and keeps its traceback.
    """
