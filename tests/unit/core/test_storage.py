"""Objects of a lake's storage."""

import tracemalloc

from micromegas_jupyter.core.storage import Storage

_MIB = 1024 * 1024


def test_a_small_object_takes_little_memory_however_large_it_may_be(tmp_path):
    storage = Storage(tmp_path)
    storage.write("log", b"entry")
    tracemalloc.start()

    content, _mark = storage.read("log", max_bytes=256 * _MIB)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert content == b"entry"
    assert peak < _MIB
