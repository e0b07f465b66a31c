"""The errors that say in one line what is wrong with the data, and what kept it from being got."""


class DataError(ValueError):
    """A scenario or a data set cannot be used; the message is one line: what, where, the way out."""


class FetchError(RuntimeError):
    """The network, the disk or an archive failed while a data set was being got; the message is one line."""


class ReaderDiedError(RuntimeError):
    """A process that makes batches has ended; `status` is as in `Process.exitcode`."""

    def __init__(self, status: int | None) -> None:
        super().__init__(f"a process that reads images ended with status {status}")
        self.status = status
