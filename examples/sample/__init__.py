"""Sets the sample handbook in PDF, EPUB, DOCX, HTML, Markdown and plain text. `make_sample.py` is the way in."""
