"""windowkv and sentence: one score for a piece of text."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Needs
from lcdoc.local_engine.compression.scorers.segments import segment_means
from lcdoc.local_engine.compression.scorers.sentence import SentenceKV
from lcdoc.local_engine.compression.scorers.snapkv import SnapKV
from lcdoc.local_engine.compression.scorers.windowkv import WindowKV
from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.tests.local_engine.compression.whole_model import SHAPES, close, made


def means_by_hand(values: Tensor, pieces: Tensor, highest: int | None = None) -> Tensor:
    result = torch.zeros_like(values, dtype=torch.float64)
    for h in range(values.shape[0]):
        for i in range(values.shape[1]):
            members = [float(values[h, j]) for j in range(values.shape[1]) if pieces[h, j] == pieces[h, i]]
            counted = sorted(members, reverse=True)[:highest]
            result[h, i] = sum(counted) / len(counted)
    return result


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("size", "best"), [(1, 1), (8, 3), (16, 100), (1000, 2)])
def test_windows_count_by_their_mean_or_their_best(shape: tuple[int, int, int, int], size: int, best: int) -> None:
    heads = made(shape)
    scores = SnapKV(window=4).score(heads)
    windows = heads.positions // size
    for options, expected in (
        ({"task": "sum-up"}, means_by_hand(scores, windows)),
        ({"best": best}, means_by_hand(scores, windows, best)),
    ):
        close(WindowKV(size=size, window=4, groups=None, **options).score(heads), expected)  # type: ignore[arg-type]
        alike = WindowKV(size=size, window=4, **options).score(heads)  # type: ignore[arg-type]
        close(alike, expected.mean(0).expand_as(expected))


def test_a_window_of_one_hit_wins_where_places_are_looked_for_only() -> None:
    values = torch.tensor([[0.0, 0.0, 0.9, 0.0, 0.4, 0.4, 0.4, 0.4]])
    pieces = torch.tensor([[5, 5, 5, 5, 6, 6, 6, 6]])
    assert int(segment_means(values, pieces, 1).argmax()) < 4
    assert int(segment_means(values, pieces).argmax()) >= 4
    assert segment_means(values[:, :0], pieces[:, :0]).shape == (1, 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sentence_counts_by_its_mean(shape: tuple[int, int, int, int]) -> None:
    heads = made(shape)
    generator = torch.Generator().manual_seed(4)
    starts = torch.rand(heads.positions.shape, generator=generator) < 0.2
    scores = SentenceKV(window=4).score(replace(heads, sentence_starts=starts))
    close(scores, means_by_hand(SnapKV(window=4, kernel=1).score(heads), starts.cumsum(1)))


def test_a_sentence_that_lost_its_first_token_is_still_one() -> None:
    heads = made((1, 12, 8, 4))
    starts = torch.tensor([[1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0]], dtype=torch.bool)
    whole = replace(heads, sentence_starts=starts)
    SentenceKV().score(whole)
    assert whole.state["sentence"].tolist() == [[1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]]
    # Entries 4 and 9 .. 11 are gone; three more go on with the last sentence, and begin a fourth.
    left = torch.tensor([0, 1, 2, 3, 5, 6, 7, 8])
    state = torch.nn.functional.pad(whole.state["sentence"][:, left], (0, 4))
    later_starts = torch.cat([starts[:, left], torch.tensor([[False, True, False, False]])], 1)
    later = replace(heads, sentence_starts=later_starts, new=4, state={"sentence": state})
    scores = SentenceKV().score(later)
    assert later.state["sentence"].tolist() == [[1, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4]]
    assert len(set(scores[0, :4].tolist())) == 1
    assert len(set(scores[0].tolist())) == 4


def test_sentences_must_be_told() -> None:
    with pytest.raises(InvalidRequestError, match="where sentences start"):
        SentenceKV().score(made((1, 9, 8, 4)))


@pytest.mark.parametrize(
    ("options", "named"),
    [({"task": "other"}, "task is 'other'"), ({"size": 0}, "size is 0"), ({"best": 0}, "best is 0"),
     ({"window": 0}, "last 0 queries"), ({"groups": 0}, "groups is 0")],
)  # fmt: skip
def test_options_out_of_range_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        WindowKV(**options)  # type: ignore[arg-type]
    assert WindowKV(groups=None).needs == SentenceKV().needs == Needs(window=32)
    assert WindowKV().needs == Needs(window=32, whole_layer=True, groups=4)
