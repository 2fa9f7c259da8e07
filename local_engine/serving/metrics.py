"""What `/metrics` tells Prometheus: the requests as clients see them, and the engine's own figures."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lcdoc.local_engine.engine import Engine
from lcdoc.local_engine.requests import Piece

_FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)
_NEXT_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_WHOLE_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)


@dataclass
class Observed:
    """One request under way."""

    outcome: str = "failed"
    began_s: float = field(default_factory=time.perf_counter)
    last_s: dict[int, float] = field(default_factory=dict)
    """When the last piece of each choice came."""


class Metrics:
    """Counts and times requests."""

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "lcdoc_requests",
            "Requests by how they ended: ok, invalid, too_large, busy, closing, timeout, cancelled, failed.",
            ("api", "outcome"),
            registry=self._registry,
        )
        self._first = Histogram(
            "lcdoc_time_to_first_token_seconds",
            "From a request's arrival to the first token of its first answer.",
            buckets=_FIRST_TOKEN_S,
            registry=self._registry,
        )
        self._next = Histogram(
            "lcdoc_inter_token_seconds",
            "From one token of an answer to the next; tokens that came together share the time.",
            buckets=_NEXT_TOKEN_S,
            registry=self._registry,
        )
        self._whole = Histogram(
            "lcdoc_request_seconds",
            "From a request's arrival to the end of its answer, for those that ended well.",
            buckets=_WHOLE_S,
            registry=self._registry,
        )
        self._registry.register(_EngineFigures(engine))

    @contextmanager
    def request(self, api: str) -> Iterator[Observed]:
        """Observe a request from its arrival to its end."""
        observed = Observed()
        try:
            yield observed
        finally:
            self._requests.labels(api, observed.outcome).inc()
            if observed.outcome == "ok":
                self._whole.observe(time.perf_counter() - observed.began_s)

    def piece(self, observed: Observed, choice: int, piece: Piece) -> None:
        """Observe a piece of an answer."""
        if not piece.tokens:
            return
        now_s = time.perf_counter()
        if not observed.last_s:
            self._first.observe(now_s - observed.began_s)
        elif choice in observed.last_s:
            each_s = (now_s - observed.last_s[choice]) / len(piece.tokens)
            for _ in piece.tokens:
                self._next.observe(each_s)
        observed.last_s[choice] = now_s

    def text(self) -> bytes:
        """All figures, in Prometheus' text format."""
        return generate_latest(self._registry)


class _EngineFigures(Collector):
    """The engine's figures at the moment they are asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        stats = self._engine.stats()
        gauges = (
            ("lcdoc_requests_running", "Answers being written or read for.", stats.running),
            ("lcdoc_requests_waiting", "Answers that wait for others to end.", stats.waiting),
            ("lcdoc_cache_pages", "Pages of the cache of keys and values.", stats.pages),
            ("lcdoc_cache_pages_used", "Pages in use, by answers and by kept prefixes.", stats.pages_used),
            ("lcdoc_cache_pages_kept", "Of those, pages of kept prefixes, free when needed.", stats.pages_cached),
        )
        counters = (
            ("lcdoc_prompt_tokens", "Tokens of prompts, of answers that ended.", stats.prompt_tokens),
            ("lcdoc_prompt_tokens_cached", "Of those, tokens found in the prefix cache.", stats.cached_tokens),
            ("lcdoc_output_tokens", "Tokens answered, of answers that ended.", stats.output_tokens),
            ("lcdoc_draft_tokens", "Tokens drafted.", stats.drafted_tokens),
            ("lcdoc_draft_tokens_accepted", "Of those, tokens that held.", stats.accepted_tokens),
            ("lcdoc_preemptions", "Answers that gave their pages up and were read again.", stats.preemptions),
            ("lcdoc_forward_passes", "Passes of the model.", stats.steps),
        )
        yield from (GaugeMetricFamily(name, said, value) for name, said, value in gauges)
        yield from (CounterMetricFamily(name, said, value) for name, said, value in counters)
