"""`register_ray`: joblib, and with it scikit-learn's ``n_jobs``, on this session.

As https://docs.ray.io/en/latest/ray-more-libs/joblib.html
"""

from __future__ import annotations

__all__ = ["register_ray"]


def register_ray() -> None:
    """Make ``joblib.parallel_backend("ray")`` and ``joblib.parallel_config("ray")`` work.

    Raises:
        ImportError: joblib is not installed.
    """
    from joblib.parallel import register_parallel_backend

    from miniray.util.joblib.ray_backend import RayBackend

    register_parallel_backend("ray", RayBackend)
