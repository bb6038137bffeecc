"""Key-values of the session, with the results of Ray's functions."""

import pytest

import miniray
from miniray.experimental import internal_kv as kv

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module", autouse=True)
def session():
    miniray.init(num_cpus=1)
    yield
    miniray.shutdown()


def test_a_put_says_whether_there_was_a_value_already():
    assert kv._internal_kv_put(b"a", b"1") is False
    assert kv._internal_kv_put(b"a", b"2") is True
    assert kv._internal_kv_put(b"a", b"3", overwrite=False) is True
    assert kv._internal_kv_put(b"a2", b"3", False) is False
    assert kv._internal_kv_get(b"a") == b"2"


def test_strings_are_encoded():
    kv._internal_kv_put("s", "text")
    assert kv._internal_kv_get(b"s") == kv._internal_kv_get("s") == b"text"


def test_namespaces_keep_equal_keys_apart():
    kv._internal_kv_put(b"n", b"x", namespace=b"x")
    assert kv._internal_kv_get(b"n") is None
    assert kv._internal_kv_get(b"n", namespace="x") == b"x"
    assert kv._internal_kv_exists(b"n", namespace=b"x")
    assert not kv._internal_kv_exists(b"n", namespace=b"y")


def test_keys_are_listed_and_deleted_by_prefix():
    for number in range(3):
        kv._internal_kv_put(b"p%d" % number, b"")
    assert sorted(kv._internal_kv_list("p")) == [b"p0", b"p1", b"p2"]
    assert (kv._internal_kv_del(b"p0"), kv._internal_kv_del(b"p0")) == (1, 0)
    assert kv._internal_kv_del(b"p", del_by_prefix=True) == 2
    assert kv._internal_kv_list(b"p") == []


def test_empty_keys_and_values_are_keys_and_values():
    assert kv._internal_kv_get(b"") is None
    kv._internal_kv_put(b"", b"")
    assert kv._internal_kv_get(b"") == b""
    assert kv._internal_kv_exists(b"")


def test_what_is_no_text_is_refused():
    for call in (
        lambda: kv._internal_kv_get(3),
        lambda: kv._internal_kv_put(b"q", None),
        lambda: kv._internal_kv_put(None, b"q"),
    ):
        with pytest.raises(AssertionError):
            call()
    with pytest.raises(TypeError, match="expected bytes, int found"):
        kv._internal_kv_put(b"q", b"", namespace=3)
    with pytest.raises(miniray.exceptions.RaySystemError, match="Key can't start with @namespace_"):
        kv._internal_kv_put(b"@namespace_x", b"")


def test_tasks_use_the_same_values():
    @miniray.remote
    def read():
        return kv._internal_kv_initialized(), kv._internal_kv_get(b"from the driver")

    kv._internal_kv_put(b"from the driver", b"1")
    assert miniray.get(read.remote()) == (True, b"1")


def test_after_a_reset_there_is_nothing_to_use():
    kv._internal_kv_reset()
    assert not kv._internal_kv_initialized()
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'internal_kv_get'"):
        kv._internal_kv_get(b"a")
    kv._initialize_internal_kv(None)
    assert kv._internal_kv_initialized()
