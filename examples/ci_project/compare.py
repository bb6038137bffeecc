"""Run this project's tests on Ray and on miniray, and print time and coverage side by side.

python compare.py [--ray-python PATH] [--times N] [--json]
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent


def run(python, arguments):
    """Run the suite: seconds, the last line of pytest, coverage by file (percent)."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "COVERAGE_FILE": str(Path(folder, ".coverage")),
            "RAY_AUTH_MODE": "disabled",
            "RAY_DISABLE_IMPORT_WARNING": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--cov=orders", "--cov-report=term"]
        started = time.monotonic()
        done = subprocess.run(
            [*command, *arguments], cwd=HERE, env=environment, capture_output=True, text=True, timeout=600
        )
        seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(f"{' '.join([*command, *arguments])} failed:\n{done.stdout}{done.stderr}")
    covered = {
        Path(name).name: int(percent) for name, percent in re.findall(r"^(orders\S+\.py) .*?(\d+)%", done.stdout, re.M)
    }
    (summary,) = re.findall(r"^.*\d+ passed.*$", done.stdout, re.M)
    return seconds, int(re.search(r"(\d+) passed", summary)[1]), covered


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ray-python", default=os.environ.get("MINIRAY_RAY_PYTHON", sys.executable))
    parser.add_argument("--times", type=int, default=1, help="runs of each; the fastest counts")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    given = parser.parse_args()
    found = {}
    # The plugin is there by itself where miniray is installed; from a checkout it has to be named.
    plugin = [] if installed() else ["-p", "miniray.testing.pytest_plugin"]
    for name, python, arguments in (
        ("Ray", given.ray_python, ["-p", "no:miniray"]),
        ("miniray", sys.executable, [*plugin, "--miniray"]),
    ):
        found[name] = min(run(python, arguments) for _ in range(given.times))
    (ray, tests, on_ray), (mini, tests_too, on_miniray) = found["Ray"], found["miniray"]
    assert tests == tests_too, found
    if given.json:
        print(json.dumps({"tests": tests, "ray_s": ray, "miniray_s": mini, "ray": on_ray, "miniray": on_miniray}))
        return
    print(f"{tests} tests{'':<18}{'Ray':>10}{'miniray':>10}")
    print(f"{'wall time':<26}{ray:>8.1f} s{mini:>8.1f} s   {ray / mini:.1f} times")
    for file in sorted(on_ray):
        print(f"{'coverage of ' + file:<26}{on_ray[file]:>8} %{on_miniray[file]:>8} %")


def installed():
    from importlib.metadata import entry_points

    return any(entry.name == "miniray" for entry in entry_points(group="pytest11"))


if __name__ == "__main__":
    main()
