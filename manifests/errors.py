"""The one exception tree: what a user did, or a file that is not what it says.

Every message is one sentence that says what must hold, what came, and where.
"""

LONGEST_MESSAGE = 1000  # characters; a hostile file may give a name of megabytes


class SeamlineError(Exception):
    """Root of every error that this project raises on purpose; the commands exit with status 2.

    Whatever a file made it quote, its text is one line, of printable characters, and not endless.
    """

    def __str__(self) -> str:
        text = " ".join(super().__str__().split())
        if len(text) > LONGEST_MESSAGE:
            text = f"{text[: LONGEST_MESSAGE // 2]} ... {text[-LONGEST_MESSAGE // 4 :]}"
        return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


class UsageError(SeamlineError):
    """A wrong argument, recipe, or combination of inputs."""


class VideoError(SeamlineError):
    """A video that cannot be read exactly: every decoder and the probe raise this and nothing else.

    Attributes:
        path: The file, as it was given.
        reason: One clause, without the path.
    """

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.path, self.reason)  # survives the trip between processes


class VideoUnavailable(VideoError):
    """The disk or the store of a video does not answer; the video itself may be fine."""


class ShardError(SeamlineError):
    """A shard, done record or plan whose bytes are not what its records say."""


class CheckpointError(SeamlineError):
    """A checkpoint that does not fit the model, the classes or the recipe."""


class StoreError(SeamlineError):
    """A feature store that is damaged, or belongs to another FeatureSpec."""
