"""Notifications: an async actor that waits for orders to be shipped."""

import asyncio

import ray


@ray.remote
class Shipping:
    def __init__(self):
        self._shipped = {}

    def _event(self, order):
        return self._shipped.setdefault(order, asyncio.Event())

    async def wait_for(self, order):
        """Return when the order is shipped."""
        await self._event(order).wait()
        return f"{order} is on its way"

    async def ship(self, order):
        """Tell all who wait."""
        self._event(order).set()
