"""Runtime environments: what the processes of a job, a task or an actor need around them.

Source: https://docs.ray.io/en/latest/ray-core/handling-dependencies.html
"""

from miniray.runtime_env.runtime_env import RuntimeEnv, RuntimeEnvConfig

__all__ = ["RuntimeEnv", "RuntimeEnvConfig"]
