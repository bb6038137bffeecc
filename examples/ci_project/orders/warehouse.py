"""The warehouse: what is in stock, kept by an actor."""

import ray


class OutOfStock(RuntimeError):
    """There are fewer than were asked for."""


@ray.remote
class Warehouse:
    def __init__(self, stock):
        self._stock = dict(stock)
        self._reserved = {}

    def reserve(self, order, item, count):
        """Take `count` of an item off the stock for an order."""
        if self._stock.get(item, 0) < count:
            raise OutOfStock(f"{item}: {self._stock.get(item, 0)} left, {count} wanted")
        self._stock[item] -= count
        self._reserved.setdefault(order, []).append((item, count))
        return self._stock[item]

    def cancel(self, order):
        """Put back what was reserved for an order; how many pieces."""
        lines = self._reserved.pop(order, [])
        for item, count in lines:
            self._stock[item] += count
        return sum(count for _, count in lines)

    def stock(self):
        """What is left."""
        return dict(self._stock)
