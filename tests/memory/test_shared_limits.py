"""The small file that processes share while they live."""

import threading
from concurrent.futures import ThreadPoolExecutor

from lcdoc.memory.shared_limits import SharedFile


def test_many_may_make_the_file_at_once(tmp_path):
    for number in range(10):
        files = [SharedFile(tmp_path / f"limits-{number}.sqlite") for _ in range(8)]
        together = threading.Barrier(len(files))

        def count(file, together=together):
            together.wait()
            return file.change("key", lambda state: (f"{int(state or 0) + 1}", None))

        with ThreadPoolExecutor(len(files)) as threads:
            list(threads.map(count, files))
        assert files[0].change("key", lambda state: (state, state)) == "8"
        for file in files:
            file.close()
