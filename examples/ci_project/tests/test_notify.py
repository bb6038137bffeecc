"""Tests of orders/notify.py."""

import pytest
import ray
from orders.notify import Shipping

pytestmark = pytest.mark.usefixtures("session")


def test_all_who_wait_are_told():
    shipping = Shipping.remote()
    waiting = [shipping.wait_for.remote("order 1") for _ in range(10)]
    assert ray.wait(waiting, timeout=0.1)[0] == []
    ray.get(shipping.ship.remote("order 1"))
    assert ray.get(waiting) == ["order 1 is on its way"] * 10
    ray.kill(shipping)


def test_who_comes_late_is_told_at_once():
    shipping = Shipping.remote()
    ray.get(shipping.ship.remote("order 1"))
    assert ray.get(shipping.wait_for.remote("order 1")) == "order 1 is on its way"
    ray.kill(shipping)
