"""Settings that change no result: environment variables, so that none of them makes a stage run again."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from newsfuse.errors import ParamsError, nearest

PREFIX = "NEWSFUSE_"


class Environment(BaseModel):
    """Every variable that newsfuse reads beside the providers' own, by its name without NEWSFUSE_."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where a model computes."""
    ledger: Path | None = None
    """Where the ledger is; else in the root of the DVC project. A relative path counts from there."""
    budget_usd: float = Field(default=1.0, ge=0)
    """What one run may spend."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Requests in flight."""
    max_inputs: int | None = Field(default=None, ge=1)
    """Texts in one request, where a server takes fewer than the provider it imitates."""
    usd_per_million_tokens: float | None = Field(default=None, ge=0)
    """The price, where newsfuse does not know it or has an old one."""
    retries: int = Field(default=5, ge=0, le=100)
    """How often a request that may yet work is asked again."""
    timeout_s: float = Field(default=60.0, gt=0)
    """How long an answer may take. The OpenAI client's own 600 s would look like a hang."""
    cache_mb: int = Field(default=2000, ge=0)
    """What parsed copies of behaviors.tsv may take under .newsfuse/parsed, in megabytes; 0: none are kept."""
    bookmark_minutes: float = Field(default=10.0, ge=0)
    """After how long training keeps where it is in the middle of an epoch; 0: at the end of epochs alone."""
    tensorboard: Path | None = None
    """Where training writes its curves for TensorBoard too; a relative path counts from the root of the DVC project."""
    mirror: str | None = None
    """Where `newsfuse fetch` downloads from, instead of the known places: URLs with spaces between."""

    no_plugins: bool = False
    """Whether installed packages are left alone, whatever params.yaml lists: newsfuse's own plugins only."""

    @classmethod
    def read(cls, variables: Mapping[str, str] = os.environ) -> "Environment":
        """What `variables` say; empty ones count as unset. Raises ParamsError with all mistakes at once."""
        ours = {name: value.strip() for name, value in variables.items() if name.startswith(PREFIX)}
        given = {name.removeprefix(PREFIX).lower(): value for name, value in ours.items() if value}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise ParamsError("\n".join(_explain(dict(mistake)) for mistake in error.errors())) from error


def _explain(mistake: Mapping[str, object]) -> str:
    (field, *_) = mistake["loc"] if isinstance(mistake["loc"], tuple) else ("",)
    name = f"{PREFIX}{str(field).upper()}"
    if mistake["type"] == "extra_forbidden":  # a misspelt budget must not be a budget of another size
        known = [each.upper() for each in Environment.model_fields]
        # compared without the prefix, which all have in common
        close = nearest(str(field).upper(), known).replace("'", f"'{PREFIX}", 1)
        return f"{name}: no such variable.{close} Known: {', '.join(PREFIX + each for each in known)}"
    return f"{name}: {mistake['msg']}, found {mistake['input']!r}"
