"""Tests of orders/pricing.py."""

import pytest
import ray
from orders.pricing import UnknownKind, price, quote, quote_all

pytestmark = pytest.mark.usefixtures("session")


@pytest.mark.parametrize(
    ("line", "cents"), [(("books", 1000, 1), 1070), (("tools", 1000, 2), 2380), (("books", 0, 5), 0)]
)
def test_a_line_is_priced_with_tax(line, cents):
    assert ray.get(price.remote(line)) == cents


def test_an_unknown_kind_is_the_callers_error():
    with pytest.raises(UnknownKind, match="cheese"):
        ray.get(price.remote(("cheese", 1, 1)))


def test_an_error_in_a_line_is_the_error_of_the_sum():
    with pytest.raises(ray.exceptions.RayTaskError):
        ray.get(quote([("books", 1, 1), ("cheese", 1, 1)]))


def test_large_orders_have_a_discount():
    assert ray.get(quote([("books", 1000, 1)])) == 1070
    assert ray.get(quote([("books", 10_000, 1)])) == 10_165


def test_many_orders_at_once():
    assert ray.get(quote_all.remote([[("books", 1000, 1)]] * 20)) == [1070] * 20
