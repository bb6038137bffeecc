"""Latencies in buckets that double."""

from miniray.state_machines.latency_histogram import LatencyHistogram


def test_quantiles_are_the_ends_of_buckets():
    histogram = LatencyHistogram()
    assert histogram.quantile_us(0.5) == 0.0
    for _ in range(90):
        histogram.add(15e-6)
    histogram.add(0.01, 10)
    assert histogram.quantile_us(0.5) == 20.0
    assert 10_000 <= histogram.quantile_us(0.99) <= 20_480
    assert (histogram.total, histogram.rows()) == (100, [(20.0, 90), (10240.0, 10)])


def test_the_last_bucket_holds_whatever_is_longer():
    histogram = LatencyHistogram()
    histogram.add(10_000.0)
    assert histogram.total == 1
    assert histogram.quantile_us(1.0) <= 10_000e6
