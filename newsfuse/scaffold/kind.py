"""The four kinds of plugin, as `newsfuse new` calls them, and how a run is told to use one."""

from enum import StrEnum


class Kind(StrEnum):
    """What a plugin may be."""

    ENCODER = "encoder"
    FUSION = "fusion"
    EMBEDDER = "embedder"
    USER_ENCODER = "user_encoder"

    @property
    def folder(self) -> str:
        """Where files of this kind are, under plugins/; hooks are named alike."""
        return f"{self}s"

    def settings(self, name: str) -> str:
        """What `dvc exp run` is given, in words of a shell, to use the plugin of that name."""
        match self:
            case Kind.ENCODER:
                return f"-S +encoders.{name}=true"
            case Kind.EMBEDDER:
                # the embed stage depends on options.<provider>, and DVC asks that it be there
                return f"-S embed.provider={name} -S '+options.{name}={{}}'"
            case Kind.FUSION | Kind.USER_ENCODER:
                return f"-S {self}={name}"
