"""Tests of orders/shop.py."""

import pytest
import ray
from orders.shop import Shop
from orders.warehouse import OutOfStock


def test_an_order_is_priced_and_reserved(fresh_session):
    shop = Shop({"books": 3})
    assert shop.order("a", [("books", 1000, 2)]) == 2140
    assert ray.get(shop.warehouse.stock.remote()) == {"books": 1}
    shop.close()


def test_an_order_that_cannot_be_filled_reserves_nothing(fresh_session):
    shop = Shop({"books": 3, "tools": 0})
    with pytest.raises(OutOfStock):
        shop.order("a", [("books", 1000, 1), ("tools", 500, 1)])
    assert ray.get(shop.warehouse.stock.remote()) == {"books": 3, "tools": 0}
    shop.close()


def test_a_closed_shop_answers_no_more(fresh_session):
    shop = Shop({})
    ray.get(shop.warehouse.stock.remote())
    shop.close()
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(shop.warehouse.stock.remote())
