"""Prices: pure functions, run as tasks."""

import ray

RATES = {"books": 0.07, "tools": 0.19}


class UnknownKind(ValueError):
    """There is no tax rate for this kind of goods."""


@ray.remote
def price(line):
    """The price of one line of an order, in cents, with tax."""
    kind, cents, count = line
    if kind not in RATES:
        raise UnknownKind(kind)
    return round(cents * count * (1 + RATES[kind]))


@ray.remote
def total(*prices):
    """The sum, and a discount for large orders."""
    amount = sum(prices)
    return amount - amount // 20 if amount >= 10_000 else amount


def quote(lines):
    """A ref of the price of a whole order: one task per line, one for the sum."""
    return total.remote(*[price.remote(line) for line in lines])


@ray.remote(max_retries=0)
def quote_all(orders):
    """Prices of many orders: a task that submits tasks."""
    return ray.get([quote(lines) for lines in orders])
