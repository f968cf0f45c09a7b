"""What can stop a training run that was set up rightly."""

from wsisr.errors import WsisrError


class TrainingError(WsisrError, RuntimeError):
    """A run cannot start, go on or be resumed."""
