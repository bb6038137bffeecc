"""joblib and scikit-learn on a session; runs where they are installed."""

from __future__ import annotations

import os
from typing import Any

import pytest

joblib = pytest.importorskip("joblib")

from miniray.util.joblib import register_ray  # noqa: E402

pytestmark = pytest.mark.usefixtures("session")


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    register_ray()


def test_calls_run_in_other_processes() -> None:
    with joblib.parallel_backend("ray"):
        pids = joblib.Parallel(n_jobs=2)(joblib.delayed(os.getpid)() for _ in range(8))
    assert os.getpid() not in pids
    assert len(set(pids)) <= 2


def test_all_cpus_are_those_of_the_session() -> None:
    with joblib.parallel_config("ray", n_jobs=-1):
        assert joblib.effective_n_jobs() == 2
        assert joblib.Parallel()(joblib.delayed(pow)(number, 2) for number in range(50)) == [n**2 for n in range(50)]


def test_an_error_ends_the_run_and_the_next_one_works() -> None:
    def invert(number: int) -> float:
        return 1 / number

    with joblib.parallel_backend("ray"):
        with pytest.raises(ZeroDivisionError):
            joblib.Parallel(n_jobs=2)(joblib.delayed(invert)(number) for number in range(1))
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(invert)(number) for number in (1, 2)) == [1, 0.5]


def test_a_large_array_is_stored_once() -> None:
    np = pytest.importorskip("numpy")
    array: Any = np.ones(100_000)
    with joblib.parallel_backend("ray"):
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(np.sum)(array) for _ in range(4)) == [100_000.0] * 4


def test_cross_validation_of_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_iris
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import SVC

    features, labels = load_iris(return_X_y=True)
    expected = cross_val_score(SVC(), features, labels, cv=3)
    with joblib.parallel_backend("ray"):
        assert list(cross_val_score(SVC(), features, labels, cv=3, n_jobs=2)) == list(expected)
