"""`index`, `show`, `library`, `doctor` and the help texts."""

import io
import json

import pytest
from PIL import Image
from reportlab.pdfgen.canvas import Canvas


@pytest.fixture
def pier_pdf(tmp_path):
    path = tmp_path / "pier.pdf"
    canvas = Canvas(str(path), invariant=True)
    canvas.addPageLabel(0, style="ROMAN_LOWER", start=1)
    canvas.addPageLabel(1, style="ARABIC", start=1)
    for text in ("A preface of one line.", "The bell on the pier is of bronze."):
        canvas.drawString(72, 700, text)
        canvas.showPage()
    canvas.save()
    return path


def test_index_then_ask(lcdoc, story):
    run = lcdoc("index", story)
    assert run.returncode == 0
    assert "1 page, " in run.stderr
    assert lcdoc("ask", story, "Who was the first keeper?").returncode == 0


def test_show_by_number_and_by_label(lcdoc, pier_pdf):
    assert lcdoc("show", pier_pdf, "--page", 2).stdout == "The bell on the pier is of bronze.\n"
    assert lcdoc("show", pier_pdf, "--page", "i").stdout == "A preface of one line.\n"
    run = lcdoc("show", pier_pdf, "--page", 9)
    assert run.returncode == 2
    assert "has no page '9'; name a page from 1 to 2" in run.stderr


def test_show_draws_the_page_with_the_quote(lcdoc, pier_pdf, tmp_path):
    run = lcdoc("show", pier_pdf, "-p", 2, "--image", "out.png", "--quote", "the pier is of bronze")
    assert run.returncode == 0, run.stderr
    colours = {colour for _, colour in Image.open(io.BytesIO((tmp_path / "out.png").read_bytes())).getcolors(1 << 20)}
    assert (255, 221, 51) in colours


@pytest.mark.parametrize(
    ("quote", "message"),
    [("the pier is of gold", "does not say"), ("A preface of one line", "is not on page 2; use --page 1")],
)
def test_show_refuses_what_the_page_does_not_say(lcdoc, pier_pdf, quote, message):
    run = lcdoc("show", pier_pdf, "-p", 2, "--image", "out.png", "--quote", quote)
    assert run.returncode == 2
    assert message in run.stderr


def test_the_library_commands(lcdoc, story, pier_pdf):
    lcdoc("index", story, pier_pdf, "--quiet")
    listed = json.loads(lcdoc("library", "list", "--json").stdout)
    assert {entry["paths"][0] for entry in listed} == {str(story), str(pier_pdf)}
    shown = json.loads(lcdoc("library", "show", story, "--json").stdout)
    assert shown["sections"][0] == "The Lamp at the North Pier (page 1)"
    assert "sound" in lcdoc("library", "verify").stderr
    assert lcdoc("library", "remove", story).returncode == 0
    pier_pdf.unlink()
    assert "pier.pdf" in lcdoc("library", "prune", "--missing").stdout
    assert json.loads(lcdoc("library", "list", "--json").stdout) == []


def test_library_mistakes_are_one_line(lcdoc):
    run = lcdoc("library", "show", "nothing-like-it")
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    run = lcdoc("library", "prune")
    assert run.returncode == 2
    assert "--missing" in run.stderr


def test_doctor_never_shows_a_key(lcdoc, environment):
    environment["OPENAI_API_KEY"] = "sk-planted-secret"
    run = lcdoc("doctor")
    assert run.returncode == 0, run.stdout
    assert "planted-secret" not in run.stdout + run.stderr
    assert [line for line in run.stdout.splitlines() if "OPENAI_API_KEY" in line and line.endswith(" set")]


@pytest.mark.parametrize("command", [[], ["ask"], ["index"], ["show"], ["library"], ["library", "prune"], ["doctor"]])
def test_every_command_has_a_help_that_fits_a_terminal(lcdoc, command):
    run = lcdoc(*command, "--help")
    assert run.returncode == 0
    assert max(map(len, run.stdout.splitlines())) <= 80


def test_version(lcdoc):
    assert lcdoc("--version").stdout.startswith("lcdoc 0.")
