"""What a job will take, reckoned from a sample."""

import pytest

from lcdoc.jobs.errors import JobError
from lcdoc.jobs.job import Job
from lcdoc.jobs.plan import plan
from lcdoc.jobs.sampling import Amount
from lcdoc.workflows.workspace import Workspace


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("LCDOC_CONFIG", str(tmp_path / "none.toml"))
    (tmp_path / "none.toml").write_text("", encoding="utf-8")

    def opened(model):
        return Workspace.open(tmp_path / "library.sqlite", background=False, model=model)

    return opened


def papers(folder, count):
    """Texts of different lengths; their paths."""
    folder.mkdir()
    paths = []
    for number in range(count):
        path = folder / f"{number:02}.md"
        told = (
            f"Lamp {number}-{line} was lit in {1700 + line} by the keeper of the pier."
            for line in range(5 + 20 * number)
        )
        path.write_text("\n\n".join(told), encoding="utf-8")
        paths.append(str(path))
    return paths


def test_a_sample_stands_for_the_rest(tmp_path, workspace):
    paths = papers(tmp_path / "docs", 9)
    (tmp_path / "docs" / "bad.pdf").write_bytes(b"%PDF-1.4 nothing" * 300)
    paths.append(str(tmp_path / "docs" / "bad.pdf"))
    job = Job(tasks=({"question": "When was lamp 3 lit?"}, {"kind": "summarize", "words": 50}))
    steps = []
    with workspace("offline") as opened:
        made = plan(job, iter(paths), opened, sample=5, on_progress=lambda done, total: steps.append((done, total)))
        assert steps == [(number, 5) for number in range(1, 6)]
        assert (made.documents, made.sampled, made.tasks, made.model) == (10, 5, 2, "offline")
        assert len(made.unreadable) == 1
        assert "bad.pdf" in made.unreadable[0]
        assert made.pages == Amount(8, pytest.approx(4, abs=2), pytest.approx(12, abs=2))
        assert (made.calls.likely, made.usd) == (0, Amount(0, 0, 0))
        assert made.reading_s.likely > 0
        assert made.answering_s.likely > 0
        assert made.seconds(2, 2) == pytest.approx(made.seconds(1, 1) / 2)
        again = plan(job, paths, opened, sample=5)
        assert again.reading_s is None
        plain = again.as_dict()
        assert plain["pages"]["likely"] == 8
        with pytest.raises(JobError, match="none of 1 documents can be read"):
            plan(job, paths[-1:], opened)


def test_a_model_is_planned_and_not_asked(tmp_path, workspace):
    paths = papers(tmp_path / "docs", 2)
    (tmp_path / "none.toml").write_text(
        '[models.mine]\nurl = "http://127.0.0.1:9/v1"\nmodel = "m"\ncontext_window = 8000\n'
        "prices = { input = 1.0, output = 4.0 }\n",
        encoding="utf-8",
    )
    tasks = tuple({"question": f"Which keeper lit lamp {number}?", "workflow": "map_reduce"} for number in range(9))
    with workspace("mine") as opened:
        made = plan(Job(tasks=tasks), paths, opened, sample=None)
    assert made.sampled == made.documents == 2
    assert made.calls.likely >= 18
    assert made.tokens_in.likely > made.tokens_out.likely > 0
    usd = (made.tokens_in.likely * 1.0 + made.tokens_out.likely * 4.0) / 1e6
    assert made.usd.likely == pytest.approx(usd, rel=0.01)
    assert made.at_most_usd >= made.usd.likely
    assert made.answering_s is None
    assert made.seconds(1, 8) is None
