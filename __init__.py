"""lcdoc reads documents longer than a model can take and answers with page citations checked against the source."""

__version__ = "0.1.0"
