"""The error that says what is wrong with the data or the scenario that was asked for."""


class DataError(ValueError):
    """A scenario or a data set cannot be used; the message is one line: what, where, the way out."""
