"""``ray.util.dask``: a scheduler for Dask: every task of a Dask graph is a task here.

    import dask
    from miniray.util.dask import ray_dask_get

    dask.config.set(scheduler=ray_dask_get)      # or: with enable_dask_on_ray(): ...

Needs the package `dask`.

Source: https://docs.ray.io/en/latest/ray-more-libs/dask-on-ray.html
"""

from miniray.util.dask.scheduler import disable_dask_on_ray, enable_dask_on_ray, ray_dask_get, ray_dask_get_sync

__all__ = ["disable_dask_on_ray", "enable_dask_on_ray", "ray_dask_get", "ray_dask_get_sync"]
