"""The errors that say in one line what is wrong with the data, and what kept it from being got."""


class DataError(ValueError):
    """A scenario or a data set cannot be used; the message is one line: what, where, the way out."""


class FetchError(RuntimeError):
    """The network, the disk or an archive failed while a data set was being got; the message is one line."""


class UnclearError(DataError):
    """A file can be read in more than one way, so it is not read; the message begins with its path."""
