from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lcdoc.local_engine.draws import mixed, uniform
from lcdoc.local_engine.errors import EngineError, InvalidRequestError
from lcdoc.local_engine.sampling import NoTokenError, Row, Sampled, Sampling, sample


def tokens(drawn: list[Sampled]) -> list[int]:
    return [each.token for each in drawn]


def by_transformers(logits: torch.Tensor, row: Row) -> torch.Tensor:
    """Log-probabilities [V] float64 that transformers' processors leave of one row."""
    sampling = row.sampling
    chain = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        chain.append(RepetitionPenaltyLogitsProcessor(penalty=sampling.repetition_penalty))
    chain.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        chain.append(TopKLogitsWarper(top_k=sampling.top_k))
    if sampling.top_p < 1:
        chain.append(TopPLogitsWarper(top_p=sampling.top_p))
    if sampling.min_p:
        chain.append(MinPLogitsWarper(min_p=sampling.min_p))
    history = torch.as_tensor(np.asarray(row.history, np.int64))[None]
    return chain(history, logits.double()[None])[0].log_softmax(-1)


def inverted(logprobs: torch.Tensor, chance: float) -> tuple[int, float]:
    """The token at `chance` in the order of ids, and how far from a border of two tokens that is."""
    ends = logprobs.exp().numpy().cumsum()
    return int(np.searchsorted(ends, chance, side="right")), float(np.abs(ends - chance).min())


SETTINGS = [
    Sampling(temperature=1.0),
    Sampling(temperature=0.3),
    Sampling(temperature=0.7, top_k=1),
    Sampling(temperature=1.3, top_k=40),
    Sampling(temperature=1.0, top_k=700),
    Sampling(temperature=1.0, top_k=9000),
    Sampling(temperature=0.8, top_p=0.9),
    Sampling(temperature=1.0, top_p=0.05),
    Sampling(temperature=2.0, top_p=0.99),
    Sampling(temperature=1.0, min_p=0.1),
    Sampling(temperature=1.0, top_k=50, top_p=0.8),
    Sampling(temperature=1.0, top_k=50, top_p=0.8, min_p=0.05),
    Sampling(temperature=1.0, top_p=0.8, min_p=0.2, repetition_penalty=1.3),
    Sampling(temperature=0.9, repetition_penalty=0.7),
]


@pytest.mark.parametrize("size", [5, 300, 6000])
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_draws_are_those_of_transformers_filters(size: int, spread: float) -> None:
    noise = torch.Generator().manual_seed(size)
    logits = torch.randn(len(SETTINGS) * 4, size, generator=noise) * spread
    rows = [
        Row(sampling.seeded(), torch.randint(size, (30,), generator=noise).numpy(), index)
        for sampling in SETTINGS
        for index in range(4)
    ]
    drawn = tokens(sample(logits, rows))
    compared = 0
    for line, row, token in zip(logits, rows, drawn, strict=True):
        wanted, distance = inverted(by_transformers(line, row), uniform(row.seed, row.index))
        if distance > 1e-6:
            assert token == wanted, row.sampling
            compared += 1
    assert compared > len(rows) * 0.9


def test_greedy_is_argmax_and_needs_no_seed() -> None:
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    logits[2, 7] = logits[2, 600] = 50.0
    drawn = tokens(sample(logits, [Row(Sampling(), [], 0) for _ in range(4)]))
    assert drawn == logits.argmax(-1).tolist()
    assert drawn[2] == 7


def test_penalties_of_the_answer_are_openais() -> None:
    logits = torch.zeros(1, 6)
    logits[0] = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    # Token 5 is in the prompt alone, 4 three times in the answer, 3 once.
    row = Row(Sampling(temperature=1.0, presence_penalty=1.5, frequency_penalty=0.5, seed=3), [5, 5, 4, 3, 4, 4], 4)
    wanted = torch.tensor([0.0, 1.0, 2.0, 3.0 - 1.5 - 0.5, 4.0 - 1.5 - 3 * 0.5, 5.0]).double().log_softmax(-1)
    for index in range(4, 400):
        row = Row(row.sampling, np.concatenate((np.full(index - 4, 5), row.history))[-6:], 4)
        row.seed = index
        token, distance = inverted(wanted, uniform(index, 4))
        if distance > 1e-6:
            assert tokens(sample(logits, [row])) == [token]


def test_a_list_and_an_array_of_history_are_one() -> None:
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(1))
    sampling = Sampling(temperature=1.0, repetition_penalty=5.0, frequency_penalty=2.0, seed=5)
    history = [3, 4, 3, 9, 44]
    for index in range(5):
        one = sample(logits, [Row(sampling, history, index)])
        assert one == sample(logits, [Row(sampling, np.asarray(history, np.int32), index)])


def test_logits_are_left_as_they_were() -> None:
    logits = torch.randn(3, 400, generator=torch.Generator().manual_seed(2))
    before = logits.clone()
    sampling = Sampling(temperature=1.0, top_p=0.9, repetition_penalty=2.0, seed=1)
    mask = torch.arange(400) % 2 == 0
    sample(logits, [Row(sampling, [1, 2], 0, mask), Row(Sampling(), [], 0, mask), Row(sampling, [1, 2], 0)])
    sample(logits, [Row(sampling, [1, 2], 0, mask)] * 3)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("sampling", [Sampling(temperature=1.0), Sampling(temperature=0.7, top_k=12, top_p=0.95)])
def test_frequencies_are_the_probabilities(sampling: Sampling) -> None:
    logits = torch.randn(1, 30, generator=torch.Generator().manual_seed(4)) * 1.5
    draws = 20_000
    for seed in (1, 2, 2**63):
        seeded = Sampling(temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p, seed=seed)
        rows = [Row(seeded, [], index) for index in range(draws)]
        counts = np.bincount(tokens(sample(logits.expand(draws, -1), rows)), minlength=30)
        wanted = by_transformers(logits[0], rows[0]).exp().numpy() * draws
        assert counts[wanted == 0].sum() == 0
        assert chisquare(counts[wanted > 0], wanted[wanted > 0]).pvalue > 0.001


def test_uniforms_are_uniform_and_independent_of_neighbours() -> None:
    values = np.array([[uniform(seed, index) for index in range(200)] for seed in range(100)])
    assert chisquare(np.histogram(values, bins=50, range=(0, 1))[0]).pvalue > 0.001
    assert abs(np.corrcoef(values[:, :-1].ravel(), values[:, 1:].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.03
    assert len(np.unique(values)) == values.size


def test_splitmix_is_the_published_one() -> None:
    # First outputs of the reference generator at state 1234567, whose increments this one counts through.
    gamma = 0x9E3779B97F4A7C15
    wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [mixed((1234567 + step * gamma) % 2**64) for step in (1, 2, 3)] == wanted


some_sampling = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.2, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 5, 300]),
    top_p=st.sampled_from([1.0, 0.9, 0.3, 0.999]),
    min_p=st.sampled_from([0.0, 0.1]),
    repetition_penalty=st.sampled_from([1.0, 1.5]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**64 - 1),
    logprobs=st.sampled_from([None, 0, 3]),
)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_batch_gives_the_same_tokens(data: st.DataObject) -> None:
    requests = data.draw(st.lists(some_sampling, min_size=1, max_size=6))
    size = data.draw(st.sampled_from([3, 900, 5000]))
    noise = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    logits = torch.randn(len(requests), size, generator=noise)
    if data.draw(st.booleans()):  # many ties, as bfloat16 makes them
        logits = logits.mul(2).round().div(2)
    masks = [torch.rand(size, generator=noise) < 0.5 if number % 2 else None for number in range(len(requests))]
    for mask in masks:
        if mask is not None:
            mask[1] = True
    rows = [
        Row(sampling, [0, 1, 2, 1], number % 4, mask)
        for number, (sampling, mask) in enumerate(zip(requests, masks, strict=True))
    ]
    together = sample(logits, rows)
    order = data.draw(st.permutations(range(len(rows))))
    shuffled = sample(logits[list(order)], [rows[number] for number in order])
    for place, number in enumerate(order):
        alone = sample(logits[number : number + 1], [rows[number]])[0]
        assert alone.token == together[number].token == shuffled[place].token
        assert [token for token, _ in alone.top] == [token for token, _ in together[number].top]
        if masks[number] is not None:
            assert masks[number][alone.token]


@pytest.mark.parametrize("top_p", [0.3, 0.77])
def test_ties_at_the_border_of_a_nucleus_are_cut_by_id(top_p: float) -> None:
    logits = torch.zeros(1, 1000)
    kept = math.ceil(1000 * top_p)
    rows = [Row(Sampling(temperature=1.0, top_p=top_p, seed=seed), [], 0) for seed in range(500)]
    drawn = tokens(sample(logits.expand(500, -1), rows))
    assert max(drawn) < kept
    assert max(drawn) > kept - 50
    assert drawn == [int(uniform(seed, 0) * kept) for seed in range(500)]


def test_bits_and_booleans_mask_alike() -> None:
    size = 150
    logits = torch.randn(1, size, generator=torch.Generator().manual_seed(5))
    allowed = torch.rand(size, generator=torch.Generator().manual_seed(6)) < 0.3
    words = np.zeros(-(-size // 32) * 4, np.uint8)
    packed = np.packbits(allowed.numpy(), bitorder="little")
    words[: len(packed)] = packed
    bits = torch.from_numpy(words.view(np.int32))
    for seed in range(100):
        sampling = Sampling(temperature=2.0, seed=seed)
        one = tokens(sample(logits, [Row(sampling, [], 0, allowed)]))
        assert one == tokens(sample(logits, [Row(sampling, [], 0, bits)]))
        assert allowed[one[0]]


def test_tokens_beyond_a_mask_are_not_allowed() -> None:
    logits = torch.zeros(1, 100)
    logits[0, 64:] = 9.0
    mask = torch.full((2,), -1, dtype=torch.int32)
    assert tokens(sample(logits, [Row(Sampling(), [], 0, mask)]))[0] < 64
    assert tokens(sample(logits, [Row(Sampling(), [], 0, torch.ones(50, dtype=torch.bool))]))[0] < 50


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0), Sampling(temperature=1.0, top_k=3)])
def test_an_empty_mask_names_its_row(sampling: Sampling) -> None:
    logits = torch.randn(3, 40)
    rows = [Row(sampling, [], 0), Row(sampling, [], 0, torch.zeros(2, dtype=torch.int32)), Row(sampling, [], 0)]
    with pytest.raises(NoTokenError, match="row 1: the mask leaves no token") as caught:
        sample(logits, rows)
    assert caught.value.row == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0), Sampling(temperature=1.0, top_p=0.9)])
def test_damaged_logits_are_an_error(sampling: Sampling, value: float) -> None:
    logits = torch.randn(2, 600)
    logits[1, 5] = value
    with pytest.raises(NoTokenError, match="row 1: the model's logits hold"):
        sample(logits, [Row(Sampling(), [], 0), Row(sampling, [], 0)])


def test_a_few_tokens_left_of_many_are_enough() -> None:
    logits = torch.randn(1, 5000)
    mask = torch.zeros(5000, dtype=torch.bool)
    mask[[17, 4000]] = True
    for seed in range(50):
        row = Row(Sampling(temperature=1.0, top_k=20, top_p=0.99, seed=seed), [], 0, mask)
        assert tokens(sample(logits, [row]))[0] in {17, 4000}


def test_no_temperature_overflows() -> None:
    logits = torch.tensor([[300.0, -300.0, 299.0]])
    for temperature in (1e-300, 1e-5, 1e-4):
        assert tokens(sample(logits, [Row(Sampling(temperature=temperature, top_p=0.9), [], 0)])) == [0]
    drawn = [tokens(sample(logits, [Row(Sampling(temperature=1e30, seed=seed), [], 0)]))[0] for seed in range(60)]
    assert set(drawn) == {0, 1, 2}


def test_logprobs_are_the_models_own() -> None:
    logits = torch.randn(3, 5000, generator=torch.Generator().manual_seed(8))
    mask = torch.zeros(5000, dtype=torch.bool)
    mask[99] = True
    rows = [
        Row(Sampling(logprobs=0), [], 0),
        Row(Sampling(temperature=1.0, top_p=0.999, seed=1, logprobs=5, repetition_penalty=3.0), [1, 2], 0),
        Row(Sampling(temperature=0.5, logprobs=2), [], 0, mask),
    ]
    drawn = sample(logits, rows)
    wanted = logits.double().log_softmax(-1)
    for line, row, each in zip(wanted, rows, drawn, strict=True):
        assert each.logprob == pytest.approx(float(line[each.token]), abs=1e-4)
        best = line.topk(row.sampling.logprobs or 0)
        assert [token for token, _ in each.top] == best.indices.tolist()
        assert [value for _, value in each.top] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert drawn[2].token == 99
    assert sample(logits, [Row(Sampling(), [], 0)] * 3)[0].logprob is None


def test_no_seed_is_a_new_one_for_each_request_and_stays_with_it() -> None:
    requests = [Sampling(temperature=1.0).seeded() for _ in range(20)]
    assert len({request.seed for request in requests}) == 20
    assert all(request.seeded() is request for request in requests)
    logits = torch.zeros(1, 1000)
    row = Row(Sampling(temperature=1.0), [], 0)
    assert sample(logits, [row]) == sample(logits, [row])
    assert Row(requests[0], [], 5).seed == requests[0].seed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.5),
        ("repetition_penalty", 0.0),
        ("presence_penalty", 2.5),
        ("frequency_penalty", math.nan),
        ("seed", 2**64),
        ("max_tokens", 0),
        ("stop", ("a", "")),
        ("logprobs", 21),
    ],
)
def test_what_is_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{name} is .*; it must be"):
        Sampling(**{name: value})  # type: ignore[arg-type]


def test_rows_must_fit_the_logits() -> None:
    with pytest.raises(EngineError, match="1 rows need float32 logits"):
        sample(torch.zeros(2, 10), [Row(Sampling(), [], 0)])
    with pytest.raises(EngineError, match="bfloat16"):
        sample(torch.zeros(1, 10, dtype=torch.bfloat16), [Row(Sampling(), [], 0)])
    assert sample(torch.zeros(0, 10), []) == []
