"""Asking again what may yet work, after a pause, and not for ever."""

from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar, cast

import tenacity

from newsfuse.errors import ProviderError, TransientError
from newsfuse.paid.pace import LONGEST_WAIT_S

BACKOFF_S = 1.0
P = ParamSpec("P")
T = TypeVar("T")


def patiently(attempts: int, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """What `call` gives, in one of at most so many attempts. Raises ProviderError when the last one has failed."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        stop=tenacity.stop_after_attempt(attempts),
        wait=pause_s,
        retry_error_callback=give_up,
    )
    return retrying(call, *args, **named)


def pause_s(state: tenacity.RetryCallState) -> float:
    """As long as the provider asked, else exponential backoff with jitter; never above LONGEST_WAIT_S."""
    asked = failure(state).wait_s
    backoff = tenacity.wait_exponential_jitter(multiplier=BACKOFF_S, max=LONGEST_WAIT_S, jitter=BACKOFF_S)
    return min(asked, LONGEST_WAIT_S) if asked else backoff(state)


def give_up(state: tenacity.RetryCallState) -> NoReturn:
    """Raise ProviderError in the last failure's words."""
    last = failure(state)
    message = f"{last}. Gave up after {state.attempt_number} requests"
    raise ProviderError(message) from last


def failure(state: tenacity.RetryCallState) -> TransientError:
    """What the latest attempt ended in: nothing else is retried."""
    return cast("TransientError", state.outcome and state.outcome.exception())
