"""The one exception tree: every error that a user can cause or repair is a `VernissageError`."""

from __future__ import annotations

from typing import ClassVar


class VernissageError(Exception):
    """Root of all errors that end a command with a message instead of a traceback.

    The message names the thing, what was found, what was expected and what to do about it.

    Attributes:
        exit_code: What the process returns to its caller.
        transient: Whether the same command may succeed later without any change, so that a scheduler may retry.
    """

    exit_code: ClassVar[int] = 1
    transient: ClassVar[bool] = False


class BadParams(VernissageError):  # noqa: N818 - names read as what happened
    """A value in params.yaml, an override or an environment variable is not what it must be."""

    exit_code: ClassVar[int] = 2


class BadInput(VernissageError):  # noqa: N818
    """Data that came from outside cannot be used."""


class RejectedImage(BadInput):
    """One picture cannot be used; the batch goes on and the reason goes into rejected.csv.

    Args:
        reason: Why, as one short line without the file's name, for example `empty file`.
        source: The picture's path or name; put in front of the reason in the message.
    """

    def __init__(self, reason: str, source: object = None) -> None:
        super().__init__(reason if source is None else f"{source}: {reason}")
        self.reason = reason
        self.source = source

    def __reduce__(self) -> tuple[type[RejectedImage], tuple[str, object]]:
        """Rebuild from both arguments, so that the error survives the way back from a worker process."""
        return (type(self), (self.reason, self.source))


class MissingArtifact(VernissageError):  # noqa: N818
    """A file that an earlier stage makes is not there."""


class CorruptArtifact(VernissageError):  # noqa: N818
    """A file of ours is damaged: its hash or its format is not what was written."""


class GateFailed(VernissageError):  # noqa: N818
    """A quality gate looked at a dataset or a model and said no."""


class NotEnoughDisk(VernissageError):  # noqa: N818
    """The disk has less free space than a stage needs."""

    transient: ClassVar[bool] = True
