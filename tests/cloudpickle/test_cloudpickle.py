"""``miniray.cloudpickle``: the functions of ``ray.cloudpickle``."""

from __future__ import annotations

import threading
from io import BytesIO

import pytest

from miniray import cloudpickle


def test_functions_go_by_value_through_bytes_and_files() -> None:
    offset = 2
    assert cloudpickle.loads(cloudpickle.dumps(lambda x: x + offset))(1) == 3
    file = BytesIO()
    cloudpickle.dump([1], file)
    file.seek(0)
    assert cloudpickle.load(file) == [1]


def test_a_pickler_writes_to_a_file() -> None:
    file = BytesIO()
    cloudpickle.CloudPickler(file).dump({"a": 1})
    assert cloudpickle.loads(file.getvalue()) == {"a": 1}


def test_dumps_debug_names_the_object_that_failed() -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError) as caught:
        cloudpickle.dumps_debug(lock)
    assert str(caught.value).startswith(f"ray.cloudpickle.dumps({lock}) failed.\nTo check which non-serializable")
    assert cloudpickle.loads(cloudpickle.dumps_debug(1)) == 1
