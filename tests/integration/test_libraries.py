"""Libraries that use Ray, unmodified, on miniray: each in a program of its own, under `miniray run`.

Needs the packages (`pip install 'miniray[libraries]'`); what is not installed is skipped. docs/libraries.md has the
table of what runs. The programs are the same on the real Ray.
"""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import miniray

PARENT = str(Path(miniray.__file__).parents[1])

pytestmark = pytest.mark.timeout(180)


def run(tmp_path, library, text, **environment):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "miniray", "run", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=170,
        env={**os.environ, "PYTHONPATH": PARENT, "PYTHONWARNINGS": "ignore", **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "pid=" not in line]


def test_hamilton_runs_its_graph_as_tasks(tmp_path):
    (tmp_path / "functions.py").write_text(
        textwrap.dedent("""
        import os

        def a(x: int) -> int:
            return x + 1

        def b(a: int) -> int:
            return a * 2

        def c(a: int, b: int) -> int:
            return a + b

        def process() -> int:
            return os.getpid()
        """)
    )
    assert run(
        tmp_path,
        "hamilton",
        """
        import os
        import functions, ray
        from hamilton import base, driver
        from hamilton.plugins import h_ray

        ray.init(num_cpus=2)
        adapter = h_ray.RayGraphAdapter(result_builder=base.DictResult())
        found = driver.Builder().with_modules(functions).with_adapters(adapter).build().execute(
            ["c", "b", "process"], inputs={"x": 1}
        )
        print(found["c"], found["b"], found["process"] != os.getpid())
        ray.shutdown()
        executor = h_ray.RayTaskExecutor(num_cpus=1)
        graph = driver.Builder().enable_dynamic_execution(allow_experimental_mode=True).with_modules(functions)
        print(graph.with_remote_executor(executor).build().execute(["c"], inputs={"x": 1}))
        """,
    ) == ["6 4 True", "{'c': 6}"]


def test_sunray_calls_functions_and_actors_with_types(tmp_path):
    assert run(
        tmp_path,
        "sunray",
        """
        import sunray
        from sunray import ActorMixin, remote_method

        @sunray.remote
        def add(x: int, y: int) -> int:
            return x + y

        @sunray.remote(num_cpus=0.5)
        def numbers(n: int):
            yield from range(n)

        class Counter(ActorMixin, num_cpus=0.5):
            def __init__(self, start: int):
                self.value = start

            @remote_method
            def add(self, k: int) -> int:
                self.value += k
                return self.value

            @remote_method
            async def later(self) -> str:
                return "later"

        with sunray.init(num_cpus=2):
            print(sunray.get(add.remote(1, 2)))
            counter = Counter.new_actor().remote(5)
            print(sunray.get(counter.methods.add.remote(2)), sunray.get(counter.methods.later.remote()))
            print([sunray.get(ref) for ref in numbers.options(num_cpus=1).remote(3)])
        """,
    ) == ["3", "7 later", "[0, 1, 2]"]


def test_modin_computes_data_frames_with_a_stand_in_for_ray_data(tmp_path):
    assert run(
        tmp_path,
        "modin",
        """
        # modin imports one function of ray.data when it starts, and calls it for Ray's data sets only.
        import sys, types
        sys.modules["ray.data"] = types.ModuleType("ray.data")
        sys.modules["ray.data"].from_pandas_refs = None

        import ray
        ray.init(num_cpus=2)
        import modin.pandas as pd
        import numpy as np

        frame = pd.DataFrame({"a": np.arange(1000), "b": np.arange(1000) % 7})
        print(int(frame.groupby("b").sum()["a"].sum()), float(frame["a"].mean()), int((frame * 2)["a"].sum()))
        print(int(frame.apply(lambda row: row.a + row.b, axis=1).sum()), frame.merge(frame.head(10), on="a").shape)
        print(frame.sort_values("b").iloc[0]["b"], frame.describe().shape)
        """,
        MODIN_ENGINE="ray",
        MODIN_CPUS="2",
    ) == ["499500 499.5 999000", "502497 (10, 3)", "0 (8, 2)"]


def test_dask_runs_on_tasks_under_rays_name(tmp_path):
    assert run(
        tmp_path,
        "dask",
        """
        import dask, ray
        from ray.util.dask import enable_dask_on_ray, ray_dask_get

        ray.init(num_cpus=2)

        @dask.delayed
        def add(x, y):
            return x + y

        print(add(add(1, 2), 3).compute(scheduler=ray_dask_get))
        with enable_dask_on_ray():
            print(dask.compute(add(1, 2), add(3, 4)))
        """,
    ) == ["6", "(3, 7)"]


def test_scikit_learn_fits_through_joblib(tmp_path):
    if importlib.util.find_spec("joblib") is None:
        pytest.skip("joblib is not installed")
    assert run(
        tmp_path,
        "sklearn",
        """
        import joblib, ray
        from ray.util.joblib import register_ray
        from sklearn.datasets import make_classification
        from sklearn.ensemble import RandomForestClassifier

        ray.init(num_cpus=2)
        register_ray()
        X, y = make_classification(200, random_state=0)
        with joblib.parallel_backend("ray", n_jobs=2):
            forest = RandomForestClassifier(10, random_state=0, n_jobs=2).fit(X, y)
            print(forest.score(X, y) > 0.9)
        """,
    ) == ["True"]


def test_plugboard_runs_its_process_in_actors(tmp_path):
    if importlib.util.find_spec("plugboard") is not None:
        version = tuple(map(int, importlib.metadata.version("pydantic").split(".")[:2]))
        if version >= (2, 12):
            pytest.skip("neither Ray nor miniray can pickle the models of this pydantic: they hold a lock")
    assert run(
        tmp_path,
        "plugboard",
        """
        import asyncio
        import typing as t
        import ray
        from plugboard.component import Component
        from plugboard.connector import RayConnector
        from plugboard.process import RayProcess
        from plugboard.schemas import ComponentArgsDict, ConnectorSpec
        from plugboard.component import IOController as IO

        class Numbers(Component):
            io = IO(outputs=["out"])

            def __init__(self, iters: int, **kwargs: t.Unpack[ComponentArgsDict]) -> None:
                super().__init__(**kwargs)
                self._iters = iters

            async def init(self) -> None:
                self._seq = iter(range(self._iters))

            async def step(self) -> None:
                try:
                    self.out = next(self._seq)
                except StopIteration:
                    await self.io.close()

        class Sum(Component):
            io = IO(inputs=["value"])
            exports = ["total"]

            def __init__(self, **kwargs: t.Unpack[ComponentArgsDict]) -> None:
                super().__init__(**kwargs)
                self.total = 0

            async def step(self) -> None:
                self.total += self.value

        async def main():
            process = RayProcess(
                components=[Numbers(name="numbers", iters=5), Sum(name="sum")],
                connectors=[RayConnector(spec=ConnectorSpec(source="numbers.out", target="sum.value"))],
            )
            async with process:
                await process.run()
            print(process.components["sum"].total)

        ray.init(num_cpus=2)
        asyncio.run(main())
        """,
    ) == ["10"]
