"""What is shipped: the wheel and the sdist are built and looked into."""

import email
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not (ROOT / "miniray").is_dir(), reason="the tests run beside an installed wheel, there is no source to build"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    code = "import sys; from hatchling.build import *; build_sdist(sys.argv[1]); build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, check=True, env={**os.environ, "PYTHONPATH": ""}
    )
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel):
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    # The second is what makes MINIRAY_AS_RAY=1 work; it is one line.
    assert {top for top in tops if not top.endswith(".dist-info")} == {"miniray", "miniray_as_ray.pth"}
    assert "miniray/py.typed" in wheel.namelist()
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "miniray").rglob("*.py")}
    assert sources <= set(wheel.namelist())


def test_the_wheel_never_ships_a_top_level_ray(wheel):
    assert not [name for name in wheel.namelist() if name.startswith("ray/") or name == "ray.py"]


def test_the_core_has_four_dependencies_and_no_upper_cap_on_python(metadata):
    needed = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert sorted(line.split(">")[0] for line in needed) == ["cloudpickle", "msgspec", "psutil", "pyzmq"]
    assert not [line for line in needed if "<" in line]
    assert metadata["Requires-Python"] == ">=3.10"


def test_the_extras_that_ray_users_ask_for_exist(metadata):
    assert {"default", "dashboard", "client", "ray", "test", "dev"} <= set(metadata.get_all("Provides-Extra"))


def test_the_command_is_installed(wheel):
    name = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "miniray = miniray.cli.main:main" in wheel.read(name).decode()


def test_the_sdist_holds_what_is_needed_to_build_and_to_test(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"pyproject.toml", "LICENSE", "README.md", "tox.ini", "miniray/py.typed", "tests/conftest.py"}
    assert wanted <= names
    assert {"docs/index.md", "examples/hello.py", ".ci/run"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", ".git/"))]
