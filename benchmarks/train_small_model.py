"""Train a small model that answers lcdoc's own prompts by copying what stands in the text, and see how often it does.

    python benchmarks/train_small_model.py FOLDER [--steps 5000] [--seed 0] [--questions 20]

FOLDER then holds what any engine for Hugging Face checkpoints takes: config.json, model.safetensors (bfloat16),
tokenizer.json and the chat template. It is a model for tests: it is taught facts of a few forms
(small_model_examples.py) and nothing else. How far it gets is what is printed at the end, about names never trained on.
Interrupted, it goes on where it last saved. --questions 0 only trains; --steps of a model that is done only asks. One
thread is enough for it: it takes OMP_NUM_THREADS. data/small_model is one of 9,000 steps, of which the first 4,700
followed the schedule of 5,000.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy

from lcdoc.agents.prompts.templates import Skill, prompt
from lcdoc.benchmarks.small_model_examples import WEIGHTS, Example, Examples
from lcdoc.benchmarks.small_model_network import Network, Shape

VOCABULARY = 1_536
START, END, PADDING = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BATCH_TOKENS = 4_000
LEARNING_RATE = 1e-2
WARMUP_STEPS = 20
DRILL, SHORT, LONG = 0.25, 0.75, 0.92
"""Shares of the steps until which: there are drills only, texts are short, texts grow to full length."""
DRILLS_AMONG_SHORT, DRILLS_AMONG_LONG = 0.3, 0.15
"""Share of drills among the steps after the first."""
SAVED_EVERY = 100
MOST_SENTENCES = 24
"""About 600 tokens of text: what a window of 2,048 leaves beside the instructions, the schema and the answer."""
SHARING: tuple[Skill, ...] = ("read", "direct", "answer", "merge")
SHARED = 0.75
"""Share of the steps of these skills that ask many questions about one text."""
QUESTION = "<question>\n"
_TOKENIZER_EXAMPLES = 4_000


# --- tokens ----------------------------------------------------------------------------------------------------------


def trained_tokenizer(seed: int) -> Tokenizer:
    """A byte-level BPE of the examples' own text; digits are tokens of their own, so that numbers are copied alike."""
    examples = Examples(seed)
    texts = [text for _ in range(_TOKENIZER_EXAMPLES) for text in _texts(examples.example(10))]
    # Each of the instructions stands in every request: a few times here are enough to make its words tokens.
    texts += [prompt(skill, "small").system for skill in WEIGHTS] * 20
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True) for token in (PADDING, START, END)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _texts(example: Example) -> tuple[str, str]:
    return example.user, example.answer


def _encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


# --- training --------------------------------------------------------------------------------------------------------


def batch(tokenizer: Tokenizer, step: int, steps: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """The shared prefix [P], tokens [B, T], and where answers stand in them [B, T]: the same for the same step."""
    rng = random.Random(f"{seed} {step}")
    examples = Examples(f"{seed} {step}")
    drills = DRILLS_AMONG_SHORT if step < SHORT * steps else DRILLS_AMONG_LONG
    if step < DRILL * steps or rng.random() < drills:
        return drill(tokenizer, examples)
    skill = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    # Short texts first: copying is learnt from them much sooner, and the long ones then only need to be searched.
    grown = min(1.0, max(0.0, step / steps - SHORT) / (LONG - SHORT))
    sentences = round(rng.uniform(2, 6 + (MOST_SENTENCES - 6) * grown))
    if skill in SHARING and rng.random() < SHARED:
        return shared(tokenizer, examples.questions(sentences, skill))
    prefix = _encoded(tokenizer, f"{START}system\n{prompt(skill, 'small').system}{END}\n{START}user\n")
    rows: list[list[tuple[list[int], bool]]] = []
    longest = 0
    while True:
        example = examples.example(sentences, skill)
        sent = _encoded(tokenizer, f"{example.user}{END}\n{START}assistant\n")
        answer = _encoded(tokenizer, f"{example.answer}{END}")
        longest = max(longest, len(sent) + len(answer))
        if rows and longest * (len(rows) + 1) > BATCH_TOKENS:
            return _stacked(tokenizer, prefix, rows)
        rows.append([(sent, False), (answer, True)])


def shared(tokenizer: Tokenizer, examples: list[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """Questions about one text, which is computed once with the instructions."""
    first = examples[0]
    same = first.user[: first.user.rindex(QUESTION) + len(QUESTION)]
    rows = [
        [
            (_encoded(tokenizer, f"{one.user.removeprefix(same)}{END}\n{START}assistant\n"), False),
            (_encoded(tokenizer, f"{one.answer}{END}"), True),
        ]
        for one in examples
    ]
    return _stacked(tokenizer, _encoded(tokenizer, f"{START}system\n{first.system}{END}\n{START}user\n{same}"), rows)


def drill(tokenizer: Tokenizer, examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
    """Nothing but facts and questions: many answers for few tokens, so that copying is learnt soon."""
    facts = examples.rng.randint(1, 6)
    rows: list[list[tuple[list[int], bool]]] = []
    while sum(len(part) for row in rows for part, _ in row) < BATCH_TOKENS:
        text, asked = examples.drill(facts)
        row = [(_encoded(tokenizer, text), False)]
        for question, answer in asked:
            row += [(_encoded(tokenizer, question), False), (_encoded(tokenizer, answer), True)]
        rows.append(row)
    return _stacked(tokenizer, [tokenizer.token_to_id(START)], rows)


def _stacked(
    tokenizer: Tokenizer, prefix: list[int], rows: list[list[tuple[list[int], bool]]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of parts, each an answer or not, as tensors, padded on the right."""
    width = max(sum(len(part) for part, _ in row) for row in rows)
    tokens = torch.full((len(rows), width), tokenizer.token_to_id(PADDING))
    answers = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        start = 0
        for part, answers_it in row:
            tokens[index, start : start + len(part)] = torch.tensor(part)
            answers[index, start : start + len(part)] = answers_it
            start += len(part)
    return torch.tensor(prefix), tokens, answers


def optimizers(network: Network) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, which needs far fewer steps for a model of this size; AdamW for the rest."""
    matrices = [p for name, p in network.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in network.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=LEARNING_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate(step: int, steps: int) -> float:
    """Share of the learning rate: up at first, then down to nothing."""
    return min((step + 1) / WARMUP_STEPS, max(0.01, 1 - step / steps))


def train(folder: Path, tokenizer: Tokenizer, *, steps: int, seed: int, bfloat16: bool) -> Network:
    """Train to `steps`, from where the folder's checkpoint is."""
    torch.manual_seed(seed)
    network = Network(Shape(tokenizer.get_vocab_size()))
    optims = optimizers(network)
    checkpoint, first = folder / "checkpoint.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["network"])
        for optim, state in zip(optims, saved["optimizers"], strict=True):
            optim.load_state_dict(state)
        first = saved["step"]
        print(f"going on from step {first}")
    began, seen, mean = time.perf_counter(), 0, math.nan
    for step in range(first, steps):
        prefix, tokens, answers = batch(tokenizer, step, steps, seed)
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = LEARNING_RATE * rate(step, steps)
            optim.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = network(prefix, tokens, answers.roll(-1, 1))
        loss = cross_entropy(logits.float(), tokens[answers])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optim in optims:
            optim.step()
        seen += tokens.numel()
        mean = loss.item() if math.isnan(mean) else 0.95 * mean + 0.05 * loss.item()
        if (step + 1) % 25 == 0:
            minutes = (time.perf_counter() - began) / 60
            so_far = f"{seen / 1e6:.1f} M tokens, {minutes:.1f} min"
            print(f"step {step + 1}: loss {mean:.4f}, {tokens.shape[1]} wide, {so_far}", flush=True)
        if (step + 1) % SAVED_EVERY == 0 or step + 1 == steps:
            state = {"network": network.state_dict(), "optimizers": [o.state_dict() for o in optims], "step": step + 1}
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
    return network


# --- the folder ------------------------------------------------------------------------------------------------------


def write(folder: Path, network: Network, tokenizer: Tokenizer) -> None:
    """The model's files, as transformers reads them."""
    ids = {"eos_token_id": tokenizer.token_to_id(END), "pad_token_id": tokenizer.token_to_id(PADDING)}
    weights = {name: weight.detach().bfloat16().contiguous() for name, weight in network.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _json(folder / "config.json", network.shape.config(**ids))
    _json(folder / "generation_config.json", {**ids, "do_sample": False})
    tokens = {"eos_token": END, "pad_token": PADDING, "chat_template": CHAT_TEMPLATE}
    window = {"model_max_length": network.shape.window, "tokenizer_class": "PreTrainedTokenizerFast"}
    _json(folder / "tokenizer_config.json", {**tokens, **window, "clean_up_tokenization_spaces": False})


def _json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


# --- looking ---------------------------------------------------------------------------------------------------------


def ask(folder: Path, examples: list[Example], *, at_once: int = 10) -> list[str]:
    """What the model in `folder` answers, greedily, read and run by transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    answers: list[str] = []
    for start in range(0, len(examples), at_once):
        chats = [
            [{"role": "system", "content": one.system}, {"role": "user", "content": one.user}]
            for one in examples[start : start + at_once]
        ]
        sent = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            given = model.generate(**sent, max_new_tokens=400, do_sample=False)
        answers += tokenizer.batch_decode(given[:, sent["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


def look(folder: Path, questions: int, seed: int) -> None:
    """Print how many held-out questions of each skill are answered exactly, in short texts and in long ones."""
    print(f"exactly the right answer, of {questions} questions about names never trained on:")
    print(f"{'skill':10} {'6 sentences':>12} {f'{MOST_SENTENCES} sentences':>14}")
    for skill in WEIGHTS:
        cells = [_right(folder, skill, sentences, questions, seed) for sentences in (6, MOST_SENTENCES)]
        print(f"{skill:10} {cells[0]:>11.0%} {cells[1]:>13.0%}", flush=True)


def _right(folder: Path, skill: Skill, sentences: int, questions: int, seed: int) -> float:
    source = Examples(f"test {seed} {skill}", testing=True)
    examples = [source.example(sentences, skill) for _ in range(questions)]
    given = ask(folder, examples)
    return sum(answer == one.answer for answer, one in zip(given, examples, strict=True)) / questions


def main() -> int:
    """Train, write, ask."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bfloat16", action="store_true", help="train in it: faster on CPUs that have it")
    parser.add_argument("--questions", type=int, default=20, help="of each skill and length; 0: none")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    if not path.exists():
        trained_tokenizer(arguments.seed).save(str(path))
    tokenizer = Tokenizer.from_file(str(path))
    network = train(folder, tokenizer, steps=arguments.steps, seed=arguments.seed, bfloat16=arguments.bfloat16)
    write(folder, network, tokenizer)
    size = (folder / "model.safetensors").stat().st_size / 1e6
    print(f"{folder}: {sum(p.numel() for p in network.parameters()) / 1e3:.0f} thousand parameters, {size:.2f} MB")
    if arguments.questions:
        look(folder, arguments.questions, arguments.seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
