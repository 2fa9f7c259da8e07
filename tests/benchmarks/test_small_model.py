"""What the small model learns from, and that the network it is trained as is the one that engines will run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lcdoc.agents.prompts.templates import SKILLS, Skill
from lcdoc.benchmarks.small_model_examples import Examples
from lcdoc.benchmarks.small_model_network import Network, Shape


def strings(value: Any, key: str) -> list[str]:
    """All strings under `key`, at any depth."""
    if isinstance(value, list):
        return [text for one in value for text in strings(one, key)]
    if not isinstance(value, dict):
        return []
    own = value.get(key, [])
    here = [text for text in (own if isinstance(own, list) else [own]) if isinstance(text, str)]
    return here + [text for name, one in value.items() if name != key for text in strings(one, key)]


@pytest.mark.parametrize("skill", SKILLS)
def test_what_is_to_be_quoted_stands_in_the_text(skill: Skill) -> None:
    examples = Examples(1)
    for _ in range(40):
        example = examples.example(8, skill)
        assert example.skill == skill
        answer = json.loads(example.answer)
        sent = " ".join(example.user.split())
        for key in ("quotes", "quote", "stated_quote", "text", "claim"):
            for text in strings(answer, key):
                assert " ".join(text.split()) in sent


def test_some_questions_have_no_answer() -> None:
    examples = Examples(1)
    found = [json.loads(examples.example(8, "read").answer)["found"] for _ in range(100)]
    assert 10 < found.count(False) < 45


def test_numbers_name_the_evidence_that_says_it() -> None:
    examples = Examples(2)
    for _ in range(40):
        example = examples.example(4, "answer")
        for claim in json.loads(example.answer)["claims"]:
            (number,) = claim["evidence"]
            block = example.user.split(f"evidence: {number}\n")[1].partition("</data-")[0]
            assert claim["text"] in block


def test_the_same_seed_gives_the_same_examples_and_another_one_others() -> None:
    one, same, other = Examples(3), Examples(3), Examples(4)
    assert [one.example(5) for _ in range(5)] == [same.example(5) for _ in range(5)]
    assert one.example(5) != other.example(5)


def test_names_kept_for_testing_are_not_trained_on() -> None:
    place = re.compile(r"The keeper of (\w+) was")
    trained, tested = (
        {name for _ in range(300) for name in place.findall(source.drill(6)[0])}
        for source in (Examples(5), Examples(5, testing=True))
    )
    assert len(trained) > 50 < len(tested)
    assert not trained & tested


def test_the_network_computes_what_transformers_does(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    shape = Shape(50, hidden=32, feed_forward=48, layers=2, head_dim=8)
    network = Network(shape)
    weights = {name: weight.detach() for name, weight in network.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(shape.config()), encoding="utf-8")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    prefix, tokens = torch.randint(0, 50, (7,)), torch.randint(0, 50, (3, 11))
    with torch.inference_mode():
        ours = network(prefix, tokens, torch.ones_like(tokens, dtype=torch.bool)).view(3, 11, 50)
        theirs = model(torch.cat([prefix.expand(3, -1), tokens], 1)).logits[:, 7:]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_in_bfloat16_it_computes_nearly_the_same() -> None:
    torch.manual_seed(0)
    network = Network(Shape(50, hidden=32, feed_forward=48, layers=2, head_dim=8))
    prefix, tokens = torch.randint(0, 50, (7,)), torch.randint(0, 50, (3, 11))
    everywhere = torch.ones_like(tokens, dtype=torch.bool)
    with torch.inference_mode():
        exact = network(prefix, tokens, everywhere)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(prefix, tokens, everywhere)
    assert (exact - rounded.float()).norm() < 0.02 * exact.norm()
