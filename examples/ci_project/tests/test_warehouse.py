"""Tests of orders/warehouse.py."""

import pytest
import ray
from orders.warehouse import OutOfStock, Warehouse

pytestmark = pytest.mark.usefixtures("session")


@pytest.fixture
def warehouse():
    actor = Warehouse.remote({"books": 3, "tools": 1})
    yield actor
    ray.kill(actor)


def test_reserving_takes_off_the_stock(warehouse):
    assert ray.get(warehouse.reserve.remote("a", "books", 2)) == 1
    assert ray.get(warehouse.stock.remote()) == {"books": 1, "tools": 1}


def test_what_is_not_there_cannot_be_reserved(warehouse):
    with pytest.raises(OutOfStock, match="tools: 1 left, 2 wanted"):
        ray.get(warehouse.reserve.remote("a", "tools", 2))


def test_cancelling_puts_it_back(warehouse):
    ray.get([warehouse.reserve.remote("a", "books", 1), warehouse.reserve.remote("a", "tools", 1)])
    assert ray.get(warehouse.cancel.remote("a")) == 2
    assert ray.get(warehouse.cancel.remote("a")) == 0
    assert ray.get(warehouse.stock.remote()) == {"books": 3, "tools": 1}


def test_a_named_warehouse_is_found():
    actor = Warehouse.options(name="main").remote({})
    assert ray.get(ray.get_actor("main").stock.remote()) == {}
    ray.kill(actor)
