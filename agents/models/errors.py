"""What can go wrong when a model is asked. Every message names the model, says what happened and what to do.

`retryable` says whether the same request may succeed later; the retry layer goes by it. `usage` is what the failed
attempt is charged: a stream that was cut has cost its prompt and what had come.
"""

from __future__ import annotations

from typing import ClassVar

from lcdoc.agents.models.model import TokenUsage


class ModelError(Exception):
    """A model could not answer. `str(error)` is one line and holds no key."""

    retryable: ClassVar[bool] = False

    def __init__(self, model: str, problem: str, remedy: str = "", *, usage: TokenUsage | None = None) -> None:
        self.model = model
        self.problem = problem
        self.remedy = remedy
        self.usage = usage or TokenUsage()
        message = f"model {model}: {problem}"
        super().__init__(f"{message}; {remedy}" if remedy else message)


class ModelNameError(ModelError):
    """The name is none that lcdoc understands, or the configuration does not have it."""


class ModelConfigError(ModelError):
    """The configuration file, a key or an option does not fit."""


class AuthenticationError(ModelError):
    """401, 403: the key is missing, wrong or not allowed to use this model."""


class UnknownModelError(ModelError):
    """404: the server does not have this model, or the address is not an API's."""


class RefusedRequestError(ModelError):
    """400, 413, 422 and the like: the server understood the request and does not want it."""


class UnsupportedParameterError(RefusedRequestError):
    """The server does not know a field of the request; `parameter` names it (`response_format`, `logprobs` ...)."""

    def __init__(self, model: str, problem: str, remedy: str = "", *, parameter: str) -> None:
        super().__init__(model, problem, remedy)
        self.parameter = parameter


class ContextOverflowError(RefusedRequestError):
    """The prompt and the answer are longer than the model's window. Shorter pieces may do."""

    def __init__(self, model: str, problem: str, remedy: str = "", *, context_window: int | None = None) -> None:
        super().__init__(model, problem, remedy)
        self.context_window = context_window
        """The window as the server stated it, where it did."""


class QuotaError(ModelError):
    """429 for good: the account has no credit left. Waiting does not help."""


class RateLimitError(ModelError):
    """429: too many requests or tokens for now. `retry_after_s` is what the server asks to wait, where it says so."""

    retryable = True

    def __init__(self, model: str, problem: str, remedy: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(model, problem, remedy)
        self.retry_after_s = retry_after_s


class ServerError(ModelError):
    """408, 409, 5xx, or an answer that is none: no choices, no text, broken JSON of the protocol itself."""

    retryable = True

    def __init__(
        self,
        model: str,
        problem: str,
        remedy: str = "",
        *,
        usage: TokenUsage | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(model, problem, remedy, usage=usage)
        self.retry_after_s = retry_after_s


class ConnectionFailedError(ModelError):
    """No connection: refused, unknown host, TLS."""

    retryable = True


class CutStreamError(ModelError):
    """The answer ended in the middle: with the connection or, where `interrupted`, by the server's own doing, as some
    servers do when another request comes."""

    retryable = True

    def __init__(
        self,
        model: str,
        problem: str,
        remedy: str = "",
        *,
        usage: TokenUsage | None = None,
        interrupted: bool = False,
    ) -> None:
        super().__init__(model, problem, remedy, usage=usage)
        self.interrupted = interrupted


class ModelTimeoutError(ModelError):
    """The server took too long to connect, to begin, or between two pieces of the answer."""

    retryable = True


class EngineFailedError(ModelError):
    """The engine inside lcdoc could not load a model, or failed at a request. The same would happen again."""


class InvalidOutputError(ModelError):
    """The answer did not fit the schema, also when asked once more. Its calls were charged."""


class BudgetExceededError(ModelError):
    """A cap of the run does not admit this call. `cap` names it: usd, tokens, calls or seconds."""

    def __init__(self, model: str, problem: str, remedy: str = "", *, cap: str) -> None:
        super().__init__(model, problem, remedy)
        self.cap = cap


class RetriesExhaustedError(ModelError):
    """The server kept failing; the last error is `__cause__`."""
