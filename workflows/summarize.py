"""Summarising whole documents: a tree of summaries, cut where it has the length asked for, put into a paragraph a section.

A short document is summarised in one call. With something to be about (the question), every leaf is read for it
instead, since a summary of everything may pass over it. Only sentences with a quote that stands in the source are
shown; each top-level section should have one, and those that have none are named.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypedDict

from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.notes import Note, Quote, Summary, SummaryPoint
from lcdoc.agents.reader import Reader
from lcdoc.documents import Document
from lcdoc.memory import Library
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.events import Pieces, Place, Progress
from lcdoc.workflows.frame import GraphWorkflow
from lcdoc.workflows.readers import Readers
from lcdoc.workflows.search import Search
from lcdoc.workflows.session import Session
from lcdoc.workflows.summary_length import Paragraph, cited, lengthened, shared_words, word_count
from lcdoc.workflows.tree_building import (
    BuildingState,
    SummaryTree,
    TreeBuilding,
    add_building,
    building_requests,
    leaf_tokens_for,
    passages_in,
    places_summarised,
    tree_of,
)
from lcdoc.workflows.workflow import Plan, Requests
