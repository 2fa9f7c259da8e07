"""A reader that asks a language model, and believes nothing it says without looking.

Each skill is one prompt (`prompts/`), one schema, and code around them: passages are packed into as few calls as the
window takes, document text goes in as fenced data, quotes are checked on arrival, evidence is named by numbers that
code resolves. Whatever a document talks a model into, no citation comes out that is not in the source.

Prompts after "SEGMENT+" (notes of evidence and reasoning), "LLMxMapReduce" (confidence with a shared rubric) and
"Chain of Agents" (a carried message; its published budget forgets that message and the answer, this one does not).
"""

from __future__ import annotations

from lcdoc.agents.prompted_answering import PromptedAnswering
from lcdoc.agents.prompted_direct import PromptedDirect
from lcdoc.agents.prompted_judging import PromptedJudging
from lcdoc.agents.prompted_reading import MAX_NOTE_QUOTES, MAX_QUOTES, PromptedReading
from lcdoc.agents.prompted_skill import UNQUOTED_CONFIDENCE
from lcdoc.agents.prompted_summaries import PromptedSummaries

__all__ = ["MAX_NOTE_QUOTES", "MAX_QUOTES", "UNQUOTED_CONFIDENCE", "PromptedReader"]


class PromptedReader(PromptedReading, PromptedAnswering, PromptedDirect, PromptedSummaries, PromptedJudging):
    """Reads through a `ChatModel` that parses answers (`StructuredModel` or what is around it).

    Safe to share between tasks of one event loop. Skills raise ModelError; where several calls were under way, after
    all of them have ended, so that nothing paid for is thrown away unstored.
    """
