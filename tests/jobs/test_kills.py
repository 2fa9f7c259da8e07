"""A job in a storm: workers killed at moments chosen by chance, the runner too, no room on the disk for a while.

`benchmarks/batch_kills.py` does the same at full size.
"""

import sys
from pathlib import Path

import pytest

from lcdoc.benchmarks.batch_kills import QUESTIONS, ForbiddenGrowth, Storm, begin, compare, make_documents, results
from lcdoc.jobs.worker import work

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are set with prlimit")

DOCUMENTS = 16


def test_every_result_is_there_once_and_equals_that_of_a_quiet_run(tmp_path: Path) -> None:
    paths = make_documents(tmp_path / "documents", DOCUMENTS)
    alone = tmp_path / "alone.sqlite"
    quiet_job = begin(alone, paths)
    work(alone, quiet_job)
    library = tmp_path / "stormy.sqlite"
    storm = Storm(library, begin(library, paths), 2, kills=2, disk=ForbiddenGrowth(tmp_path), seed=3)
    storm.run()
    wrong = compare(results(alone, quiet_job), results(library, storm.job), DOCUMENTS * len(QUESTIONS))
    assert wrong == []
    assert storm.orphans == 0
    # A small job may be done before the last harm comes.
    assert storm.killed >= 1
    assert storm.runners + storm.filled >= 2
