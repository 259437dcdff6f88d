"""Tokens and dollars: estimated before a request, exact after it, never above the budget unnoticed."""

from newsfuse.errors import ParamsError, QuotaError

MILLION = 1_000_000
ROUNDING = 1e-9
"""Sums of floats differ by so much: work that costs exactly the budget is within it."""


def price(known: float | None, said: float | None, what: str) -> float:
    """Dollars per million tokens: what the user says, else what the plugin knows. Raises ParamsError if none does."""
    if said is not None:
        return said
    if known is None:
        message = (
            f"the price of {what} is not known, so no budget can be kept. "
            "Say it: export NEWSFUSE_USD_PER_MILLION_TOKENS=0.02 (0 where it costs nothing)"
        )
        raise ParamsError(message)
    return known


class Budget:
    """What one run has spent, has promised to requests in flight, and may spend. Not thread-safe by itself."""

    def __init__(self, limit_usd: float, usd_per_million_tokens: float) -> None:
        self.limit_usd, self.usd_per_token = limit_usd, usd_per_million_tokens / MILLION
        self.tokens = self.estimated = self.promised = 0

    @property
    def usd(self) -> float:
        """Spent so far."""
        return self.tokens * self.usd_per_token

    def forecast_usd(self, estimate: int) -> float:
        """About what `estimate` tokens will cost, corrected by how far off the estimates were so far."""
        ratio = self.tokens / self.estimated if self.estimated else 1.0
        return estimate * ratio * self.usd_per_token

    def require(self, estimate: int) -> None:
        """Raise QuotaError if all of the work, by its estimate, is above the budget."""
        if (cost := self.forecast_usd(estimate)) > self.limit_usd * (1 + ROUNDING):
            above = f"about ${cost:.4f} for {estimate:,} tokens is above the budget of ${self.limit_usd:g}"
            message = f"{above}; nothing was sent. Look at it: newsfuse plan. Allow it: {_allow(cost)}"
            raise QuotaError(message)

    def promise(self, estimate: int) -> None:
        """Set tokens aside for a request about to be sent. Raises QuotaError if it may go above the budget."""
        ahead = self.usd + self.forecast_usd(self.promised + estimate)
        if ahead > self.limit_usd * (1 + ROUNDING):
            spent = f"${self.usd:.4f} is spent, and the next request would go above the budget of ${self.limit_usd:g}"
            message = f"{spent}: the provider bills more tokens than estimated. Allow it: {_allow(2 * ahead)}"
            raise QuotaError(message)
        self.promised += estimate

    def settle(self, estimate: int, billed: int | None) -> float:
        """Take back a promise and count what was billed (None: the estimate) -> dollars."""
        tokens = estimate if billed is None else billed
        self.promised -= estimate
        self.estimated += estimate
        self.tokens += tokens
        return tokens * self.usd_per_token

    def release(self, estimate: int) -> float:
        """Take back the promise of a request that was not billed -> 0 dollars."""
        self.promised -= estimate
        return 0.0


def _allow(usd: float) -> str:
    return f"export NEWSFUSE_BUDGET_USD={float(f'{usd * 1.1:.2g}'):g}"  # not 2.6e+02
