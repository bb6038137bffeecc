"""Sessions as most Ray projects have them: one per file, and a fresh one where a test needs it."""

import pytest
import ray


@pytest.fixture(scope="module")
def session():
    ray.init("local", num_cpus=2, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture
def fresh_session():
    ray.init("local", num_cpus=2, include_dashboard=False)
    yield
    ray.shutdown()
