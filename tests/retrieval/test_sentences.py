"""Sentence splitting: a table of hand-made cases, and invariants that hold for any text."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lcdoc.documents import Span
from lcdoc.retrieval.sentences import sentence_spans

# Each case is one text, written as the list of its sentences; `‖` marks the ends that must be found.
CASES = [
    # plain
    "He left. ‖She stayed.",
    "He left.  ‖She stayed!  ‖Why?",
    "One sentence without an end",
    "What?! ‖No way!!! ‖Really...",
    # titles and names
    "Mr. Smith met Mrs. Jones and Dr. Brown. ‖They talked.",
    "J. R. R. Tolkien wrote it. ‖George R. R. Martin did not.",
    "We met John F. Kennedy in May. ‖He smiled.",
    "J. A. Smith wrote to A. J. Jones.",
    "Prof. Lee and Gen. Grant spoke to Sen. Warren, Rep. Lewis and Gov. Brown. ‖All agreed.",
    "He lives in St. Louis near Mt. Hood. ‖It rains.",
    "Martin Luther King Jr. was born in 1929. ‖He died in 1968.",
    "He met Sammy Davis Jr. ‖The singer was there.",
    # companies and places
    "Apple Inc. reported earnings. ‖Microsoft Corp. did too.",
    "He works at Boeing Co. in Seattle. ‖She works at Acme Ltd. ‖They met there.",
    "We acquired Foo, Inc. ‖The price was $3 million.",
    "The U.S. Department of Justice sued. ‖It won.",
    "He moved to the U.S. ‖The weather was bad.",
    "He moved to the U.S. in 1990. ‖He liked it.",
    "Sales outside of the U.S. ‖In 2022, we sold more.",
    "The F.B.I. agent and the non-U.S. supplier met in Washington, D.C. on Monday.",
    "She has a Ph.D. in physics and an M.D. from Yale. ‖Her brother has none.",
    # latin and reference abbreviations
    "Some fruits, e.g. apples, i.e. the red ones, are sweet. ‖Others (cf. Smith et al. 2020) are not.",
    "This was shown by Smith et al. ‖The result held.",
    "Bring pens, paper, etc. ‖We start at nine.",
    "Roe v. Wade and Brown vs. Board of Education were cases. ‖Both matter.",
    "See Fig. 3 and Sec. 4.2 of Vol. II, pp. 12-15. ‖It is clear.",
    "See Art. 5 and Eq. (3) in No. 7. ‖Then stop.",
    "He said no. ‖She said yes.",
    "Is it No. 5? ‖No. ‖It is not.",
    "Approx. 40 people came vs. 30 before. ‖Good.",
    "The gene has the accession no. EU714029. ‖It is short.",
    "He owns Acme Inc. ‖Dr. Lee runs it.",
    "Many are infected with hepatitis B. ‖Patients recover.",
    # dates and times
    "On Jan. 5, 2020 and Sept. 11, 2001 it rained. ‖On Dec. 25 it snowed.",
    "We meet at 5 p.m. ‖They leave at 6 a.m. Monday. ‖Fine.",
    "It opens at 9:30 a.m. Eastern time. ‖It closes at 4 p.m. EST.",
    # numbers
    "It cost $3.5 million. ‖That is 2.5% more.",
    "Version 1.2.3 is out. ‖Version 1.2.4 is not.",
    "The rate rose to 3.5. ‖The bank acted.",
    "It happened in 1990. ‖Nobody cared.",
    "1. Introduction",
    "1.2.3. Scope of the agreement",
    "Item 1A. Risk Factors",
    "Section 5.1. The Company shall pay. ‖Section 5.2. The Buyer shall not.",
    "For leases and other duties, see Note 12. ‖The Company leases aircraft.",
    "II. The plaintiff sued. ‖III. The court agreed.",
    # ellipses
    "Wait... what? ‖I thought... ‖Never mind.",
    "He paused … and went on. ‖Then he stopped…",
    "Well . . . perhaps. ‖No . . . ‖Yes.",
    # quotes and brackets
    "“Go away.” ‖He went.",
    '"Go away." ‖He went.',
    "“Go away!” he said. ‖She went.",
    "“Why?” asked Anna. ‖“Because.”",
    "He said, “Stop.” ‖“Why?” ‖“Because I say so.”",
    "(See the appendix.) ‖The rest is here.",
    "(He called it a “miracle.”) ‖Then he left.",
    "‘I am here.’ ‖‘So am I.’",
    "„Ja.“ ‖„Nein.“",
    "« Oui. » ‖Il partit.",
    "»Ja.« ‖»Nein.«",
    "She quoted it [1]. ‖He did not.[2] ‖They did.[3][4] ‖End.",
    "The agreement ended.3 ‖The parties left.”4 ‖Nothing remained.",
    "**It was bold.** ‖_Then slanted._ ‖Then more.",
    # lower-case continuation, brands
    "The approach of the corp. was new. ‖It worked.",
    "He uses amazon.com. ‖She reads nytimes.com daily.",
    "Yahoo! Inc. and Yum! Brands fell. ‖iPhone sales rose. ‖iPads did not.",
    "See www.sec.gov/edgar.html or mail a.b@c.org. ‖Thanks.",
    "Plan A failed, so we took plan B. ‖It worked.",
    "Take vitamin C. ‖The doctor said so.",
    # other scripts
    "我来了。‖你呢？‖“好！”‖他说。",
    "今天天气很好。‖我们去公园吧！",
    "彼は「行け！」と言った。‖そして去った。",
    "什么?‖我不知道!‖好的。",
    "価格は３．５ドルです。‖高い。",
    "राम घर गया। ‖सीता भी गई।",
    "كيف حالك؟ ‖أنا بخير. ‖شكرا.",
    "یہ ایک کتاب ہے۔ ‖وہ اچھی ہے۔",
    "Он пришёл. ‖Она ушла. ‖Это было в 1990.",
    "그는 갔다. ‖그녀는 왔다.",
    "Am 3. Oktober war es, z. B. in Berlin, kalt. ‖Er ging, d.h. er lief.",
    "Élodie est là. ‖Émile, lui, est parti à Paris. ‖À demain.",
    "Γεια σου. ‖Τι κάνεις;",
    # paragraphs
    "A heading\n\n‖The text begins here. ‖It goes on.",
    "an unfinished line\n\n‖another one",
    "It ended with Mr.\n\n‖Smith was next.",
    "the first\n   \n‖Second paragraph",
    # wrapped lines
    "The quick brown fox jumped over the lazy dog and\nthen ran away into the forest of\nDean, where it "
    "slept. ‖It woke at\nnoon.",
    "The company was founded in the year of the great flood by Mr.\nSmith, who was then a young man "
    "of\nEngland. ‖He sold it.",
    # headings, lists, tables on lines of their own
    "Investing Activities\n‖Cash provided by investing activities during the year was $4.4 billion, compared with\n"
    "cash used in the year before. ‖The rest is in Note 5.",
    "We sell:\n‖- apples\n‖- pears and\nplums\n‖- nuts",
    "We sell:\n‖• apples\n‖• pears",
    "Steps:\n‖1. Open the box.\n‖2. Take it out.\n‖3. Close it.",
    "Under this agreement the buyer\n‖(a) shall pay the price that the parties have agreed upon;\n‖(b) take "
    "the goods; and\n‖(c) leave.",
    "This is governed by the rules that are laid down in Section\n(a) of the Act and by nothing else at all "
    "in the world. ‖Fine.",
    "| Name | Age |\n‖| --- | --- |\n‖| Ann | 12 |",
    "name\tage\n‖ann\t12\n‖bob\t13",
    "Revenues $66,608 $62,286 $58,158\n‖Loss from operations, as reported ($3,547) ($2,902)\n‖Operating margins (5.3)% "
    "(4.7)%\n‖The table shows the revenue of the company in the years that ended on December 31, and\nthe losses.",
    "Item 10. Directors and Executive Officers of the Company 117\n‖Item 11. Executive Compensation of the Officers "
    "117\n‖Item 12. Security Ownership of Certain Owners 118",
    "20 & 1.5 & 2.5 \\\\\n‖21 & 1.7 & 2.7 \\\\\n‖22 & 1.8 & 2.8",
    "# Title\n‖Text of the section that follows the title. ‖More.",
    "UNITED STATES\n‖SECURITIES AND EXCHANGE COMMISSION\n‖Washington, D.C. 20549",
    "Contents ........ 5\n‖Preface ........ 7",
    # a running header blanked out
    "The debt that was outstanding at the end of\n                \nthe year was paid. ‖Good.",
    "The debt that was outstanding at\n  \n\n                \nthe end was paid. ‖Good.",
    "The debt was paid.\n                \n‖Nothing was left.",
    # written after the rules, as a check on them
    "Hello World. ‖My name is Jonas.",
    "What is your name? ‖My name is Jonas.",
    "There it is! ‖I found it.",
    "My name is Jonas E. Smith.",
    "Please turn to p. 55.",
    "Were Jane and co. at the party?",
    "They closed the deal with Pitt, Briggs & Co. at noon.",
    "Let's ask Jane and co. ‖They should know.",
    "They closed the deal with Pitt, Briggs & Co. ‖It closed yesterday.",
    "I can see Mt. Fuji from here.",
    "St. Michael's Church is on 5th st. near the light.",
    "That is JFK Jr.'s book.",
    "I visited the U.S.A. last year.",
    "I live in the E.U. ‖How about you?",
    "I live in the U.S. ‖How about you?",
    "I work for the U.S. Government in Virginia.",
    "I have lived in the U.S. for 20 years.",
    "At 5 a.m. Mr. Smith went to the bank. ‖He left the bank at 6 P.M. ‖Mr. Smith then went to the store.",
    "She has $100.00 in her bag.",
    "She has $100.00. ‖It is in her bag.",
    "He teaches science (He previously worked for 5 years as an engineer.) at the local University.",
    "Her email is Jane.Doe@example.com. ‖I sent her an email.",
    "The site is: https://www.example.50.com/new-site/awesome_content.html. ‖Please check it out.",
    "She turned to him, 'This is great.' she said.",
    'She turned to him, "This is great." she said.',
    'She turned to him, "This is great." ‖She held the book out to show him.',
    "Hello!! ‖Long time no see.",
    "Hello?? ‖Who is there?",
    "Hello!? ‖Is that you?",
    "Hello?! ‖Is that you?",
    "1.) The first item\n‖2.) The second item",
    "1) The first item.\n‖2) The second item.",
    "• 9. The first item\n‖• 10. The second item",
    "a. The first item\n‖b. The second item\n‖c. The third list item",
    "This is a sentence\ncut off in the middle because pdf.",
    "It was a cold \nnight in the city.",
    "You can find it at N°. 1026.253.553. ‖That is where the treasure is.",
    "She works at Yahoo! in the accounting department.",
    "We make a good team, you and I. ‖Did you see Albert I. Jones yesterday?",
    "Thoreau argues that by simplifying one’s life, “the laws of the universe will appear less complex. . . .”",
    '"Bohr [...] used the analogy of parallel stairways [...]" (Smith 55).',
    "If words are left off at the end of a sentence, and that is all that is omitted, indicate the omission "
    "with ellipsis marks (preceded and followed by a space) and then indicate the end of the sentence with a "
    "period . . . . ‖Next sentence.",
    "I never meant that.... ‖She left the store.",
    "Net sales rose 5.2% to $1.3 billion vs. $1.2 billion. ‖EPS was $0.45.",
    "The notes bear interest at 4.25% p.a. ‖They mature on Sep. 30, 2030.",
    "As used in this Form 10-K, “3M Co.” or the “Company” means 3M Company. ‖See Item 7.",
    "The case is Smith v. Jones, 123 F.3d 456 (9th Cir. 1997). ‖It was reversed.",
    "Pursuant to 17 C.F.R. § 240.13a-15, we evaluated controls. ‖They were effective.",
    "See Ex. 10.1 and Sched. B. ‖Both are filed.",
    "Dr. Watson, M.D., lived at 221B Baker St. ‖He wrote.",
    "Lt. Col. James T. Kirk arrived. ‖Spock did not.",
    "The temperature was -5.5 degrees C. ‖We froze.",
    "He got an A. ‖She got a B. ‖Nobody failed.",
    "It weighs 5 lbs. ‖The other weighs 3 kg.",
    "“I don’t know,” he said. ‖“Ask Mr. Darcy.” ‖He turned away.",
    "‘You can’t!’ cried Alice. ‖‘Why not?’ said the Hatter.",
    "The U.K., the U.S., and Canada agreed. ‖France did not.",
    "The study (n = 12; p. 4) failed. ‖We repeat it in Sect. 3.",
    "M. Dupont est arrivé à 10 h. ‖Mme. Curie l’attendait.",
    "Das kostet ca. 5 Euro. ‖Nr. 7 ist teurer.",
    "El Sr. López llegó. ‖¿Quién lo vio? ‖¡Nadie!",
    "他说：“今天很冷。”‖我说：“是的。”",
    "これはペンです。‖あれは本です。‖「はい。」‖終わり。",
    "Table 3. Results of the test",
    "Note 7. Income Taxes\n‖The provision for income taxes was $5 million in the year 2022, compared with $4 "
    "million.\n",
    "John Smith\n‖Chief Executive Officer\n‖Acme Corporation, which makes everything that anybody could want",
    "Total current assets 105,300 108,666\n‖Customer financing, net 1,450 1,695\n‖Property, plant and "
    "equipment, net 10,550 10,918",
]


def split(text: str) -> list[str]:
    return [span.of(text) for span in sentence_spans(text)]


@pytest.mark.parametrize("case", CASES)
def test_hand_made_case(case: str) -> None:
    expected = [piece.strip() for piece in case.split("‖")]
    assert split(case.replace("‖", "")) == expected


# Text made of the pieces that the rules look at, so that they meet in every order.
PIECES = st.sampled_from(
    [
        *".!?…\n \t|-–(1)[]\"'“”’»«。！」』،؟۔।aAzZ7éЖ我くк",
        "Mr.",
        "U.S.",
        "No. ",
        "e.g. ",
        "et al.",
        "\n\n",
        "\n   \n",
        "a.m. ",
        "\u2028",
        "\u200d",
        "\x00",
        "\x1c",
        "1.2.3",
        "$3.5 ",
        "The ",
        "of ",
        "Corp. ",
        "• ",
        "\n(a) ",
        "\n- ",
        ". . . ",
        ".1 A",
    ]
)
TEXTS = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=60).map("".join))


@settings(deadline=None)
@given(TEXTS)
def test_sentences_are_ordered_trimmed_and_cover_the_text(text: str) -> None:
    spans = sentence_spans(text)
    for span in spans:
        assert span.start < span.end
        assert span.of(text) == span.of(text).strip()
    for before, after in pairwise(spans):
        assert before.end <= after.start
    gaps = zip([0, *(span.end for span in spans)], [*(span.start for span in spans), len(text)], strict=True)
    assert all(text[start:end].strip() == "" for start, end in gaps)


@settings(deadline=None)
@given(TEXTS, st.data())
def test_a_part_is_split_as_if_it_stood_alone(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(0, len(text) + 5))
    alone = sentence_spans(text[start:end])
    assert sentence_spans(text, start, end) == [Span(span.start + start, span.end + start) for span in alone]


@settings(deadline=None)
@example([".。.", "0"])
@given(st.lists(TEXTS.filter(lambda text: text.strip()), min_size=1, max_size=4))
def test_blank_lines_always_end_sentences(paragraphs: list[str]) -> None:
    text = "\n\n".join(paragraph.strip() for paragraph in paragraphs)
    ends = {span.end for span in sentence_spans(text)}
    position = 0
    for paragraph in paragraphs:
        position += len(paragraph.strip())
        assert position in ends
        position += 2


@settings(deadline=None)
@given(st.lists(st.sampled_from(["one", "two", "three", "Four", "Five"]), min_size=1, max_size=30))
def test_words_without_stops_are_one_sentence(words: list[str]) -> None:
    assert len(split(" ".join(words))) == 1


@pytest.mark.parametrize(
    "piece",
    [
        ".",
        " ",
        "\n",
        ". ",
        ".\n",
        "\n ",
        "a.",
        "A. ",
        ".)",
        "[1]",
        ".[1]",
        "A\n",
        "a\n",
        "a\tb\n",
        "。",
        "我。",
        "… ",
        "... ",
        "1 2\n",
        "U.S. ",
        "\n(a) ",
        "Mr.\n",
        "a\n   \n",
        ". »",
        ".1 ",
        "\n- ",
        "|",
        "a|\n",
        ".\n\n.",
        "A" * 999 + "\nB",
    ],
)
def test_time_is_linear(piece: str) -> None:
    def seconds(characters: int) -> float:
        text = piece * (characters // len(piece))
        taken = []
        for _ in range(3):
            started = time.process_time()
            sentence_spans(text)
            taken.append(time.process_time() - started)
        return min(taken)

    # Quadratic would be 100 times as long for ten times the text; leave room for a busy machine.
    assert seconds(300_000) < 70 * max(seconds(30_000), 0.002)


def test_a_megabyte_without_any_end_is_one_sentence() -> None:
    text = "a" * 1_000_000
    assert sentence_spans(text) == [Span(0, len(text))]
