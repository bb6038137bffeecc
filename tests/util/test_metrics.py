"""miniray.util.metrics, as Ray's; the figures are the process's own."""

from __future__ import annotations

from typing import Any

import pytest

from miniray import cloudpickle
from miniray.util.metrics import Counter, Gauge, Histogram, exposition


def test_a_counter_grows_per_tags() -> None:
    counter = Counter("requests_one", "how many", tag_keys=("route",))
    counter.inc(tags={"route": "/a"})
    counter.inc(2, tags={"route": "/a"})
    counter.inc(5, tags={"route": '/"b"'})
    text = exposition()
    assert "# TYPE requests_one counter" in text
    assert 'requests_one{route="/a"} 3.0' in text
    assert 'requests_one{route="/\\"b\\""} 5.0' in text


def test_default_tags_are_filled_in() -> None:
    counter = Counter("requests_two", tag_keys=("route",))
    counter.set_default_tags({"route": "/x"})
    counter.inc()
    assert 'requests_two{route="/x"} 1.0' in exposition()


def test_a_gauge_has_its_last_value() -> None:
    gauge = Gauge("level")
    gauge.set(3)
    gauge.set(None)
    gauge.set(1.5)
    assert "level 1.5" in exposition().splitlines()


def test_a_histogram_counts_per_bucket() -> None:
    histogram = Histogram("latency", boundaries=[1.0, 10.0])
    for value in (0.5, 1.0, 5, 100):
        histogram.observe(value)
    lines = exposition().splitlines()
    assert 'latency_bucket{le="1.0"} 2.0' in lines
    assert 'latency_bucket{le="10.0"} 3.0' in lines
    assert 'latency_bucket{le="+Inf"} 4.0' in lines
    assert "latency_count 4.0" in lines
    assert "latency_sum 106.5" in lines


def test_metrics_that_share_a_name_do_not_spoil_each_others_figures() -> None:
    Histogram("shared", boundaries=[1.0, 2.0]).observe(0.5)
    Histogram("shared", "of another module", boundaries=[1.0, 2.0, 3.0]).observe(10)
    Counter("shared").inc(3)
    lines = exposition().splitlines()
    assert 'shared_bucket{le="+Inf"} 2.0' in lines
    assert "shared_sum 10.5" in lines
    assert "shared 3.0" in lines


def test_a_description_of_several_lines_is_one_line_of_the_text() -> None:
    Counter("described", "one\ntwo").inc()
    assert "# HELP described one\\ntwo" in exposition().splitlines()


def test_a_metric_survives_pickling() -> None:
    counter = cloudpickle.loads(cloudpickle.dumps(Counter("pickled", "text", tag_keys=("x",))))
    assert counter.info == {"name": "pickled", "description": "text", "tag_keys": ("x",), "default_tags": {}}


def test_an_invalid_name_is_warned_about_and_dropped() -> None:
    with pytest.warns(UserWarning, match="Invalid metric name: a b"):
        counter = Counter("a b")
    counter.inc()
    assert "a b" not in exposition()


@pytest.mark.parametrize(
    ("action", "error", "text"),
    [
        (lambda: Counter(""), ValueError, "Empty name is not allowed"),
        (lambda: Counter("a", tag_keys=["x"]), TypeError, "tag_keys should be a tuple type, got: <class 'list'>"),  # type: ignore[arg-type]
        (lambda: Counter("a", tag_keys=(1,)), TypeError, "Tag keys must be str"),  # type: ignore[arg-type]
        (lambda: Counter("a").inc(0), ValueError, "value must be >0, got 0"),
        (lambda: Counter("a").inc("s"), TypeError, "value must be int or float, got <class 'str'>"),  # type: ignore[arg-type]
        (lambda: Counter("a", tag_keys=("x",)).inc(), ValueError, r"Missing value for tag key\(s\): x\."),
        (lambda: Counter("a", tag_keys=("x",)).inc(1, {"x": 1}), TypeError, "Tag values must be str"),  # type: ignore[dict-item]
        (lambda: Counter("a").set_default_tags({"y": "1"}), ValueError, "Unrecognized tag key y"),
        (lambda: Histogram("h"), ValueError, "boundaries argument should be provided"),
        (lambda: Histogram("h", boundaries=[0, 1]), ValueError, "Invalid `boundaries` argument at index 0"),
    ],
)
def test_bad_input_gets_rays_error(action: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        action()
