"""The four hooks through which every exchangeable part arrives, ours and guests' alike.

None is `firstresult`: with that, of two plugins of one name the later would win in silence.
"""

from collections.abc import Iterable

import pluggy

from newsfuse.plugin import Embedder, Encoder, Fusion, UserEncoder

hookspec = pluggy.HookspecMarker("newsfuse")


@hookspec
def newsfuse_embedders() -> Iterable[Embedder]:  # type: ignore[empty-body]
    """Offer embedders: texts -> vectors."""


@hookspec
def newsfuse_encoders() -> Iterable[Encoder]:  # type: ignore[empty-body]
    """Offer encoders: article -> vector."""


@hookspec
def newsfuse_fusions() -> Iterable[Fusion]:  # type: ignore[empty-body]
    """Offer fusions: several vectors of an article -> one."""


@hookspec
def newsfuse_user_encoders() -> Iterable[UserEncoder]:  # type: ignore[empty-body]
    """Offer user encoders: clicked articles -> user."""
