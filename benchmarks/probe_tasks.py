"""What a probe of cache compression reads and is asked: made-up facts between sentences of natural text.

A context is natural text into which facts were put, each in a sentence of its own, about one key word each. Every
fact can be asked for, and the answer stands in the context. The tasks, after "RULER: What's the Real Context Size of
Your Long-Context Language Models?" (section 3):

- needle: `Remember walnut amber falcon river.` asks for three words behind a key, one among many keys;
- values: a key with two such sentences, each in a place of its own, both wanted;
- trace: `Follow walnut cedar.` leads from key to key, and the last is a needle: the whole way is wanted;
- count: of the words in sentences `Seen walnut amber.`, the one that was seen most often (the paper's extraction of
  frequent words). It is seen at least twice as often as any other, and no single sentence tells it;
- copy: `Passage walnut` is followed by a sentence of natural text, which is wanted word for word.

A question stands after the context, or before it; its answer begins with the key, so that both are answered alike.
Key words and values are tokens of their own, and natural sentences that contain one are left out: what a key stands
for is only in the facts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

BEGIN, ASK, ANSWER, END = "<|begin|>", "<|question|>", "<|answer|>", "<|end|>"
Task = Literal["needle", "values", "trace", "count", "copy"]
TASKS: tuple[Task, ...] = ("needle", "values", "trace", "count", "copy")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


KEYS = _words(
    "walnut cedar hazel juniper alder maple cypress acacia mulberry magnolia sycamore tamarind baobab eucalyptus "
    "hawthorn rowan laburnum sequoia poplar hornbeam linden medlar quince almond apricot papaya mango guava lychee "
    "nutmeg saffron turmeric cumin fennel thyme sorrel chervil tarragon parsley endive turnip radish leek celery "
    "spinach lettuce cabbage carrot"
)
VALUES = _words(
    "amber falcon otter badger heron lynx ibis puffin walrus dolphin penguin gecko iguana tapir okapi gazelle bison "
    "moose caribou jackal hyena leopard panther cheetah ocelot weasel ferret marmot beaver hedgehog lizard python "
    "cobra viper toucan pelican flamingo albatross cormorant osprey kestrel magpie starling finch wren thrush plover "
    "lobster shrimp oyster squid octopus salmon trout herring mackerel sardine anchovy sturgeon beetle hornet cricket "
    "mantis topaz garnet opal jasper agate onyx beryl zircon quartz granite basalt slate marble cobalt nickel copper "
    "titanium chrome zinc radium helium argon neon xenon krypton violet indigo crimson scarlet turquoise magenta ochre "
    "umber sienna lilac mauve maroon teal cyan anvil chisel mallet pulley lever piston turbine rudder anchor compass "
    "sextant lantern candle bucket ladle kettle saucer teapot goblet pitcher trumpet bassoon clarinet oboe cello "
    "banjo lute zither"
)
VALUE_WORDS = 3
_MOST_SEEN = (3, 5)
"""How often the word is seen that `count` asks for."""
_OTHERS_SEEN = 2
"""How many other words are seen with the same key."""
_COPIED = (6, 14)
"""Words of natural sentences that are copied."""
_NAMES = re.compile("|".join([*KEYS, *VALUES]))
_SENTENCE = re.compile(r"(?<=[.!?;])\s+")
_BOOK = re.compile(
    r"^\*\*\* ?START OF TH[^\n]*\n(.*?)^(?:\*\*\* ?END OF TH|End of (?:the )?Project Gutenberg)",
    re.MULTILINE | re.DOTALL,
)
_PLAIN = str.maketrans("\u2018\u2019\u201c\u201d\u2014\u2013", "''\"\"--")
_TESTED = 10
"""Of so many blocks of natural text one is kept for testing."""
_BLOCK = 200


class Sentences:
    """Natural text as sentences, those for training or those for testing."""

    def __init__(self, texts: Iterable[str], *, testing: bool = False) -> None:
        self.all: list[str] = []
        for text in texts:
            found = [" ".join(one.translate(_PLAIN).split()) for one in _SENTENCE.split(text)]
            kept = [one for one in found if one and one.isascii() and not _NAMES.search(one) and len(one) < 400]
            size = max(1, min(_BLOCK, -(-len(kept) // _TESTED)))
            for start in range(0, len(kept), size):
                if ((start // size) % _TESTED == _TESTED - 1) == testing:
                    self.all += kept[start : start + size]
        self.copied = [one for one in self.all if _COPIED[0] <= len(one.split()) <= _COPIED[1]]
        if not self.copied:
            raise ValueError(f"the text has no sentence of {_COPIED[0]} to {_COPIED[1]} words: name a folder of books")

    def run(self, rng: random.Random, words: int) -> list[str]:
        """Consecutive sentences of about so many words; none for 0."""
        place, run, count = rng.randrange(len(self.all)), [], 0
        while count < words:
            run.append(self.all[place % len(self.all)])
            count += len(run[-1].split())
            place += 1
        return run


def natural_text(folder: Path | None, *, most: int = 12) -> list[str]:
    """The .txt files of `folder`; without one, what this project says of itself."""
    if folder is not None:
        paths = sorted(folder.glob("*.txt"))[:most]
    else:
        root = Path(__file__).parents[1]
        paths = [root / "examples" / "handbook.txt", root / "README.md", *sorted((root / "docs").glob("*.md"))]
    if not paths:
        raise ValueError(f"{folder} has no .txt files")
    return [_book(path.read_text(encoding="utf-8", errors="replace")) for path in paths]


def _book(text: str) -> str:
    """Without what Project Gutenberg writes before and after a book."""
    found = _BOOK.search(text)
    return found[1] if found else text


@dataclass(frozen=True, slots=True)
class Question:
    """Of one fact. `answer` is what a solver says after the question; `evidence` are the sentences that tell it."""

    task: Task
    key: str
    ask: str
    answer: str
    evidence: tuple[str, ...]

    @property
    def text(self) -> str:
        """As it stands after a context."""
        return f"{ASK}{self.ask}{ANSWER}"

    def answers(self) -> list[str]:
        """All that are right: values may come in either order."""
        if self.task != "values":
            return [self.answer]
        said = self.answer.split()
        half = len(said) // 2
        return [self.answer, "".join(f" {word}" for word in (*said[half:], *said[:half]))]

    def right(self, given: str) -> bool:
        """Whether `given`, an answer up to the end token, is right."""
        return given.split() in [one.split() for one in self.answers()]


@dataclass(frozen=True, slots=True)
class Case:
    """A context and everything that can be asked about it."""

    context: tuple[str, ...]
    """Sentences"""
    questions: tuple[Question, ...]

    @property
    def text(self) -> str:
        return "".join(f" {sentence}" for sentence in self.context)

    def prompt(self, question: Question, *, before: bool = False) -> str:
        """The whole prompt, with the question after the context or before it."""
        if before:
            return f"{BEGIN}{ASK}{question.ask}{self.text}{ANSWER}"
        return f"{BEGIN}{self.text}{question.text}"


class Tasks:
    """Makes cases, the same ones from the same seed."""

    def __init__(self, seed: int | str, sentences: Sentences) -> None:
        self.rng = random.Random(f"probe {seed}")
        self._sentences = sentences

    def case(self, words: int, facts: Sequence[Task]) -> Case:
        """A context of about `words` words of natural text with a fact for each of `facts`.

        Raises ValueError where there are more facts than keys for them.
        """
        rng = self.rng
        keys = rng.sample(KEYS, len(KEYS))
        planted: list[tuple[str, ...]] = []
        questions: list[Question] = []
        for task in facts:
            make: Callable[[list[str]], tuple[list[str], list[Question]]] = getattr(self, f"_{task}")
            if len(keys) < 4:
                raise ValueError(f"{len(facts)} facts are more than {len(KEYS)} keys are enough for")
            told, asked = make(keys)
            planted += [(one,) for one in told]
            questions += asked
        pieces = [(one,) for one in self._sentences.run(rng, words)]
        # Facts keep no order: each goes to a place of its own.
        for one in planted:
            pieces.insert(rng.randint(0, len(pieces)), one)
        context = tuple(sentence for piece in pieces for sentence in piece)
        rng.shuffle(questions)
        return Case(context, tuple(_in_order(one, context) if one.task == "values" else one for one in questions))

    def _value(self) -> str:
        return " ".join(self.rng.sample(VALUES, VALUE_WORDS))

    def _needle(self, keys: list[str]) -> tuple[list[str], list[Question]]:
        key, value = keys.pop(), self._value()
        told = f"Remember {key} {value}."
        return [told], [Question("needle", key, f" Remember {key}", f" {key} {value}", (told,))]

    def _values(self, keys: list[str]) -> tuple[list[str], list[Question]]:
        key, both = keys.pop(), [self._value(), self._value()]
        told = [f"Remember {key} {value}." for value in both]
        return told, [Question("values", key, f" Remember both {key}", "", tuple(told))]

    def _trace(self, keys: list[str]) -> tuple[list[str], list[Question]]:
        way, value = [keys.pop() for _ in range(self.rng.choice([2, 3]))], self._value()
        told = [f"Follow {one} {other}." for one, other in pairwise(way)]
        told.append(f"Remember {way[-1]} {value}.")
        answer = "".join(f" {one}" for one in way) + f" {value}"
        return told, [Question("trace", way[0], f" Follow {way[0]}", answer, tuple(told))]

    def _count(self, keys: list[str]) -> tuple[list[str], list[Question]]:
        rng, key = self.rng, keys.pop()
        most, *others = rng.sample(VALUES, 1 + _OTHERS_SEEN)
        times = rng.randint(*_MOST_SEEN)
        told = [f"Seen {key} {most}."] * times
        for other in others:
            told += [f"Seen {key} {other}."] * rng.randint(1, times // 2)
        return told, [Question("count", key, f" Count {key}", f" {key} {most}", tuple(told))]

    def _copy(self, keys: list[str]) -> tuple[list[str], list[Question]]:
        key, sentence = keys.pop(), self.rng.choice(self._sentences.copied)
        told = f"Passage {key} {sentence}"
        return [told], [Question("copy", key, f" Copy {key}", f" {key} {sentence}", (told,))]


def _in_order(question: Question, context: Sequence[str]) -> Question:
    """With the values in the order of the context, which is how a solver is taught to say them."""
    told = sorted(question.evidence, key=context.index)
    answer = "".join(one.removeprefix("Remember").removesuffix(".") for one in told)
    return replace(question, answer=answer, evidence=tuple(told))
