"""Small sets, in the formats of the published ones."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CONTEXT = "The pier was built in 1871.\n\nIts lamp is lit by hand. The keeper is Ada Quill.\nNobody swam there in 1871."


def make_sets(folder: Path) -> None:
    """Every set of the registry in `folder`, with two or three questions each."""
    squad = {
        "title": "Pier",
        "paragraphs": [
            {
                "context": "The pier was built in 1871.",
                "qas": [
                    _squad("q1", "When was the pier built?", ["1871", "in 1871", "1871"]),
                    _squad("q2", "Who burnt the pier?", [], is_impossible=True),
                ],
            },
            {"context": "Its keeper is Ada Quill.", "qas": [_squad("q3", "Who keeps it?", ["Ada Quill"])]},
        ],
    }
    _json(folder / "squad/dev-v1.1.json", {"data": [squad]})
    _json(folder / "squad/dev-v2.0.json", {"data": [squad]})
    policy = {
        "title": "shop.example",
        "paragraphs": [{"context": "We keep logs.", "qas": [_squad("p1", "What?", ["logs"])]}],
    }
    _json(folder / "policyqa/dev.json.gz", {"data": [policy]})
    # The offset of the second question is wrong, as some are: the text is what counts.
    asked = [
        {
            "id": 7,
            "question": " Who keeps it?",
            "answers": [{"text": "Ada Quill. ", "answer_start": CONTEXT.index("Ada")}],
        },
        {"id": 8, "question": "When?", "answers": [{"text": "1871", "answer_start": 30}]},
    ]
    _json(folder / "covid_qa/200421_covidQA.json", {"data": [{"paragraphs": [{"context": CONTEXT, "qas": asked}]}]})
    for split in ("test", "val"):
        _text(
            folder / f"fairytaleqa/section-stories/{split}/the-pier-story.csv",
            'section,text\n1,"A pier, long."\n2,A lamp.\n',
        )
        _text(
            folder / f"fairytaleqa/questions/{split}/the-pier-questions.csv",
            "question_id,local-or-sum,cor_section,attribute1,attribute2,question,ex-or-im1,answer1,answer2,answer3,"
            "ex-or-im2,answer4,answer5,answer6\n"
            '1,summary,"1, 2",action,,What is there?,explicit,a pier,,,explicit,a pier,a lamp,\n',
        )
    _lines(
        folder / "multihop/musique.jsonl.gz",
        {
            "id": "2hop__1",
            "question": "Who keeps the pier's lamp?",
            "answer": "Ada Quill",
            "answer_aliases": ["Quill"],
            "paragraphs": [
                {"title": "Pier", "paragraph_text": "It has a lamp.", "is_supporting": True},
                {"title": "Swans", "paragraph_text": "They hiss.", "is_supporting": False},
                {"title": "Lamp", "paragraph_text": "Ada Quill keeps it.", "is_supporting": True},
            ],
        },
    )
    hotpot = {
        "_id": "5a7f",
        "question": "Is the pier older than the lamp?",
        "answer": "yes",
        "supporting_facts": [["Pier", 0], ["Lamp", 1]],
        "context": [["Pier", ["Built in 1871."]], ["Swans", ["They hiss."]], ["Lamp", ["Bright.", " Lit in 1880."]]],
    }
    _lines(folder / "multihop/hotpot.jsonl.gz", hotpot)
    bare = {key: value for key, value in hotpot.items() if key != "context"}
    _lines(folder / "multihop/2wikimultihop.jsonl.gz", hotpot | {"_id": "b088"}, bare | {"_id": "b089"})
    _lines(
        folder / "ohr_bench/pages.jsonl.gz",
        {"doc_name": "law/pier", "pages": [{"text": "Second.", "page_idx": 1}, {"text": "First.", "page_idx": 0}]},
    )
    question = {"doc_name": "law/pier", "ID": "a1", "questions": "What is on it?", "answers": "Second"}
    _json(folder / "ohr_bench/questions.json.gz", [question | {"evidence_page_no": 1}])
    _lines(
        folder / "financebench/questions.jsonl",
        {
            "financebench_id": "f1",
            "doc_name": "PIER_2020_10K",
            "question": "What did it earn?",
            "answer": 24.26,
            "evidence": [{"evidence_page_num": 1}, {"evidence_page_num": 0}, {"evidence_page_num": 1}],
        },
    )
    _pdf(folder / "financebench/pdfs/PIER_2020_10K.pdf", ["Revenue was 20.", "Costs were 4.26."])
    _text(folder / "books/txt/1.txt", "CHAPTER I\n\nThe keeper of the pier was Ada Quill.\n")
    _text(
        folder / "literaryqa/books_available.tsv",
        "gutenberg_id\ttitle\tfile\tsplit\tn_qas\n1\tPier\tbooks/txt/1.txt\tv\t1\n",
    )
    book = {"gutenberg_id": "1", "title": "Pier", "qas": [{"question": "Who?", "answers": ["Ada", "Ada Quill"]}]}
    _lines(folder / "literaryqa/validation.jsonl", book, book | {"gutenberg_id": "2"})
    _lines(folder / "literaryqa/test_visible.jsonl", book)
    meeting = {
        "meeting_transcripts": [
            {"speaker": name, "content": said} for name, said in (("A", "Hm."), ("B", "Red."), ("A", "Yes."))
        ],
        "specific_query_list": [
            {"query": "Which colour?", "answer": "B said red.", "relevant_text_span": [["1", "2"]]}
        ],
        "general_query_list": [{"query": "Sum up.", "answer": "They chose red."}],
    }
    _lines(folder / "qmsum/test.jsonl.gz", meeting)
    _lines(folder / "qmsum/val.jsonl.gz", meeting)
    pairs = [
        {"Q": "Who?", "A": "Ada", "S": "The keeper is Ada Quill."},
        {"Q": "When?", "A": "1871", "S": "['The pier was built in 1871.']"},
    ]
    long = {"input": CONTEXT, "title": "Pier", "qa_pairs": repr(pairs), "output": "None"}
    _lines(folder / "loogle/shortdep_qa.jsonl", long)
    _lines(folder / "loogle/longdep_qa.jsonl", long)
    cloze = [
        {"Q": "<mask-0> keeps what was built in <mask-1>.", "A": "{'<mask-0>': 'Ada', '<mask-1>': '1871'}", "S": "no"}
    ]
    _lines(folder / "loogle/shortdep_cloze.jsonl", long | {"qa_pairs": repr(cloze)})
    _lines(folder / "loogle/longdep_summarization.jsonl", long | {"qa_pairs": "none", "output": "A pier."})
    for split in ("natural_question", "scientific_qa", "legal_contract_qa", "financial_qa"):
        _lines(
            folder / f"leval/{split}.jsonl.gz",
            {"input": CONTEXT, "instructions": ["when", "who"], "outputs": ["1871", "Ada"]},
        )
    key = {"ordered_kv_records": [["k1", "v1"], ["k2", "v2"]], "key": "k2", "value": "v2"}
    _lines(folder / "lost_in_the_middle/kv-retrieval-75_keys.jsonl.gz", key)
    natural = [
        {
            "question": f"who is {number}",
            "answers": [f"Ada {number}"],
            "ctxs": [{"title": "Ada", "text": f"Ada {number} is {number}."}],
        }
        for number in range(21)
    ]
    _lines(folder / "lost_in_the_middle/nq-open-oracle.jsonl.gz", *natural)
    for task in range(1, 21):
        sign = "|" if task == 1 else "\t"
        story = ["1 Mary got the milk.", "2 John left.", f"3 What is Mary carrying? {sign}milk{sign}1", "1 Ada sat."]
        _text(
            folder / f"babi/en/qa{task}_a-task_test.txt", "\n".join([*story, f"2 Who sat?{sign}Ada,Bo{sign}1"]) + "\n"
        )
    tables = [
        {
            "table": {"table": [["", "2019"], ["Sales", "$ 10.5"]]},
            "paragraphs": [{"order": 2, "text": "In millions."}, {"order": 1, "text": "We sell piers."}],
            "questions": [
                _tatqa(f"{number}a", ["$10.5"], "span", "table", scale="million"),
                _tatqa(f"{number}b", ["piers", "lamps"], "multi-span", "text", "1"),
                _tatqa(f"{number}c", -12.6, "arithmetic", "table-text", "2"),
            ],
        }
        for number in range(9)
    ]
    _json(folder / "tatqa/tatqa_dataset_dev.json", tables)
    essays = " ".join(f"Essay sentence number {number} says little." for number in range(6_000))
    _json(folder / "needle_haystacks/PaulGrahamEssays_all.json", {"text": essays})


def _squad(identity: str, question: str, answers: list[str], **more: Any) -> dict[str, Any]:
    given = [{"text": answer, "answer_start": 0} for answer in answers]
    return {"id": identity, "question": question, "answers": given, **more}


def _tatqa(uid: str, answer: Any, kind: str, where: str, *paragraphs: str, scale: str = "") -> dict[str, Any]:
    facts = {"uid": uid, "question": "What?", "answer": answer, "answer_type": kind, "answer_from": where}
    return facts | {"rel_paragraphs": paragraphs, "scale": scale, "derivation": ""}


def _json(path: Path, value: Any) -> None:
    _bytes(path, json.dumps(value).encode())


def _lines(path: Path, *values: Any) -> None:
    _bytes(path, "".join(json.dumps(value) + "\n" for value in values).encode())


def _text(path: Path, text: str) -> None:
    _bytes(path, text.encode())


def _bytes(path: Path, raw: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def _pdf(path: Path, pages: Iterable[str]) -> None:
    from reportlab.pdfgen.canvas import Canvas

    path.parent.mkdir(parents=True, exist_ok=True)
    canvas = Canvas(str(path))
    for page in pages:
        canvas.drawString(72, 700, page)
        canvas.showPage()
    canvas.save()
