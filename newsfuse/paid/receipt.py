"""What one run of the embed stage cost."""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Receipt:
    """Distinct texts, how their vectors came about, and what was billed in this run."""

    texts: int
    paid: int = 0
    """Asked for now."""
    requests: int = 0
    tokens: int = 0
    usd: float = 0.0

    def to_json(self) -> str:
        """metrics/embed.json, whose numbers are columns of `dvc exp show`."""
        reused = self.texts - self.paid
        values = {"texts": self.texts, "paid": self.paid, "reused": reused, "requests": self.requests}
        return json.dumps({**values, "tokens": self.tokens, "dollars": round(self.usd, 6)}, indent=1) + "\n"
