"""Failures a user can act on; the command line turns each into one line and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager


class VtcError(Exception):
    """A failure with a sentence for the user: what, where, and the way out. Exit code 1."""

    exit_code = 1


class InputError(VtcError):
    """Bad input or settings: a file, row or option the user can mend. Exit code 2."""

    exit_code = 2


class NoAnswerError(VtcError):
    """The command ran, but there is no trustworthy answer (nothing fits, no fit). Exit code 3."""

    exit_code = 3


class Interrupted(VtcError):
    """A signal stopped the command in good order. Exit code 128 + the signal's number."""

    def __init__(self, message: str, exit_code: int = 130):
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def naming_stdout() -> Iterator[None]:
    """An OSError inside, such as of a full disk, says that stdout could not be written."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        error.filename = error.filename or "stdout"
        raise
