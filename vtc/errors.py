"""Failures a user can act on; the command line turns each into one line and an exit code."""


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
