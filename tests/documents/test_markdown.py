"""Markdown keeps its source; headings are found where CommonMark finds them."""

from hypothesis import given
from hypothesis import strategies as st

from lcdoc.documents import Document
from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.documents.markdown import find_headings, read
from lcdoc.documents.text import normalise


def document_of(text: str) -> Document:
    job = Job("notes.md", text.encode())
    builder = DocumentBuilder(job)
    read(job, builder)
    return builder.build(reader="test", reader_version="1", digest="")


def titles(text: str) -> list[tuple[int, str]]:
    return [(heading.level, heading.title) for heading in find_headings(text)]


SOURCE = """# The *Guide* ##

Some **bold** text with a [link](https://example.org).

Part one
========

```sh
# a comment, no heading
```

- item
  ~~~
  ## neither
  ~~~

<!-- hidden
## also not
-->

## Set up `pip` {#setup}

| a | b |
|---|---|
| 1 | 2 |

Second part
two lines
---

    # code

#no heading
####### seven
"""


def test_the_source_is_kept_and_headings_are_found() -> None:
    document = document_of(SOURCE)
    assert document.text == SOURCE.rstrip("\n")
    assert [(s.level, s.title) for s in document.sections] == [
        (1, "The Guide"),
        (1, "Part one"),
        (2, "Set up pip"),
        (2, "Second part two lines"),
    ]
    assert [document.text[s.start :].split("\n")[0] for s in document.sections] == [
        "# The *Guide* ##",
        "Part one",
        "## Set up `pip` {#setup}",
        "Second part",
    ]
    assert document.source.title == "The Guide"


def test_front_matter_gives_the_title_and_no_headings() -> None:
    document = document_of('---\ntitle: "A plan"\n# comment: x\n---\n\n## First\n\ntext\n')
    assert document.source.title == "A plan"
    assert [s.title for s in document.sections] == ["First"]
    assert document.text.startswith("---\ntitle:")


def test_rules_tables_and_lists_are_no_headings() -> None:
    assert titles("text\n\n---\n\n- item\n---\n\n> quote\n---\n\n| a |\n---\n") == []


def test_a_fence_ends_only_with_its_own_kind() -> None:
    assert titles("````\n```\n# in\n```\n````\n# out") == [(1, "out")]
    assert titles("```\n# in, never closed") == []


@given(
    st.lists(
        st.sampled_from(["# A", "## B\n", "C\n===", "```", "~~~", "text", "", "<!--", "-->", "- x", "    # n", "---"])
    )
)
def test_headings_stand_where_they_say(lines: list[str]) -> None:
    text = "\n".join(lines)
    previous = -1
    for heading in find_headings(text):
        assert heading.start > previous
        assert heading.start == 0 or text[heading.start - 1] == "\n"
        assert heading.title.split()[0] in text[heading.start :].split("\n")[0]
        previous = heading.start


@given(st.text(alphabet="#-=`~ \t\nabc>*|<!", max_size=200))
def test_nothing_but_blanks_at_line_ends_is_lost(text: str) -> None:
    job = Job("a.md", (text + "x").encode())
    builder = DocumentBuilder(job)
    read(job, builder)
    document = builder.build(reader="test", reader_version="1", digest="")
    assert document.text.split() == normalise(text + "x").split()
