"""What decides a vector: a text, and the space that it is put into."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = 1
KEY_BYTES = 32


@dataclass(frozen=True)
class Space:
    """All that decides a vector beside its text. Vectors of two spaces have nothing to do with each other."""

    provider: str
    host: str
    """"" for the provider's own server: a model of the same name elsewhere need not be the same model."""
    model: str
    dimensions: int
    text: int
    """The version of the rule that makes an article's text: newsfuse.news.TEXT_VERSION."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The plugin's own settings."""

    def __str__(self) -> str:
        """As a reader names it."""
        place = f" at {self.host}" if self.host else ""
        return f"{self.provider}{place}, {self.model}, {self.dimensions} dimensions"

    def to_dict(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)

    def to_json(self) -> str:
        """Canonical: equal spaces give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Space":
        """What `to_json` wrote."""
        return cls(**json.loads(text))

    def keys(self, texts: Iterable[str]) -> list[bytes]:
        """The key of each text: sha256 of canonical JSON. One hash per text cannot be had without a loop."""
        encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
        space = {**self.to_dict(), "schema": SCHEMA}
        return [hashlib.sha256(encode({"space": space, "words": text}).encode()).digest() for text in texts]
