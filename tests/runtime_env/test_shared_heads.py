"""Several jobs with environments of their own on one head."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import miniray
from miniray.cluster_utils import Cluster
from tests.waiting import wait_for

DRIVER = """
import os, sys
import miniray

miniray.init(sys.argv[1], namespace="shared", runtime_env={"working_dir": sys.argv[2], "env_vars": {"WHO": "first"}})


@miniray.remote(num_cpus=0.1)
class Actor:
    def look(self):
        return os.environ["WHO"], sorted(os.listdir(".")), os.getpid()


detached = Actor.options(name="stays", lifetime="detached").remote()
other = Actor.options(name="goes").remote()
print(miniray.get(other.look.remote())[2], miniray.get(detached.look.remote())[2], flush=True)
sys.stdin.read()
"""


def test_the_end_of_a_job_ends_what_runs_in_its_environment_but_not_what_is_detached(tmp_path: Path) -> None:
    projects = []
    for name in ("first", "second"):
        project = tmp_path / name
        project.mkdir()
        (project / f"{name}.txt").touch()
        projects.append(str(project))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4})
    try:
        command = [sys.executable, "-c", DRIVER, cluster.address, projects[0]]
        driver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert driver.stdout is not None
        goes, stays = map(int, driver.stdout.readline().split())
        env = {"working_dir": projects[1], "env_vars": {"WHO": "second"}}
        with miniray.init(cluster.address, namespace="shared", runtime_env=env):

            def look() -> tuple[str, list[str], int]:
                return os.environ["WHO"], sorted(os.listdir(".")), os.getpid()

            who, files, mine = miniray.get(miniray.remote(look).remote())
            assert (who, files) == ("second", ["second.txt"])
            driver.communicate("")
            wait_for(lambda: not os.path.exists(f"/proc/{goes}") if sys.platform == "linux" else True)
            detached = miniray.get_actor("stays")
            assert miniray.get(detached.look.remote()) == ("first", ["first.txt"], stays)
            assert miniray.get(miniray.remote(look).remote())[2] == mine
            miniray.kill(detached)
    finally:
        cluster.shutdown()
