"""The shop: prices, warehouse and shipping together."""

import ray

from orders.notify import Shipping
from orders.pricing import quote
from orders.warehouse import OutOfStock, Warehouse


class Shop:
    """What the web server holds."""

    def __init__(self, stock):
        self.warehouse = Warehouse.remote(stock)
        self.shipping = Shipping.remote()

    def order(self, name, lines):
        """Reserve all lines and return the price; reserve nothing if one is out of stock."""
        try:
            ray.get([self.warehouse.reserve.remote(name, kind, count) for kind, _, count in lines])
        except OutOfStock:
            ray.get(self.warehouse.cancel.remote(name))
            raise
        return ray.get(quote(lines))

    def close(self):
        """End the actors."""
        ray.kill(self.warehouse)
        ray.kill(self.shipping)
