"""What a plugin's answer must be before anything of it is kept."""

import numpy as np

from newsfuse.service import Answer

MOST_TOKENS = 2**63
"""What the ledger can note."""


def require_usable(answer: Answer, shape: tuple[int, int]) -> None:
    """Raise TypeError unless the answer has finite float32 vectors of that shape, and a count of tokens or None."""
    found = np.asarray(answer.vectors)
    if found.shape != shape or found.dtype != np.float32 or not np.isfinite(found).all():
        message = f"returned {found.dtype} {found.shape}, expected finite float32 {shape}"
        raise TypeError(message)
    tokens = answer.tokens
    if tokens is not None and not (isinstance(tokens, int) and 0 <= tokens < MOST_TOKENS):
        message = f"billed {tokens!r} tokens, expected a count or None"
        raise TypeError(message)
