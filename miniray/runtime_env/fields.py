"""The fields of a runtime environment, checked one by one in Ray's words.

Each check takes what the user gave and returns what is kept; None: nothing is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

WORKING_DIR_SUFFIXES = (".zip", ".tar.gz", ".tgz", ".tar.xz")
PY_MODULES_SUFFIXES = (".zip", ".whl", ".tar.gz", ".tgz", ".tar.xz")
#: where a package may be fetched from; "gcs" is the session itself
PROTOCOLS = ("gcs", "file", "http", "https", "s3", "gs", "azure", "abfss")


def protocol_of(uri: str) -> str:
    """The part before ``://``; "" for a path."""
    head, separator, _ = uri.partition("://")
    return head if separator else ""


def _check_uri(uri: str, suffixes: tuple[str, ...], field: str) -> None:
    if protocol_of(uri) not in PROTOCOLS:
        raise not_a_uri(uri)
    if not uri.endswith(suffixes):
        raise ValueError(f"Only {', '.join(suffixes)} files are supported for {field} URIs; got {uri}.")


def not_a_uri(text: str) -> ValueError:
    """The error for a directory where only packages may stand."""
    return ValueError(
        f"{text} is not a valid URI. Passing directories or modules to be dynamically uploaded is only supported at "
        "the job level (i.e., passed to `ray.init`)."
    )


def _check_place(place: str, suffixes: tuple[str, ...], field: str) -> None:
    if protocol_of(place):
        _check_uri(place, suffixes, field)
    elif place and not os.path.exists(os.path.expanduser(place)):
        raise ValueError(f"{place} is not a valid path.")


def check_working_dir(value: Any) -> str:
    """A directory, an archive, or the URI of one."""
    if not isinstance(value, str):
        raise TypeError(f"`working_dir` must be a string, got {type(value)}.")
    _check_place(value, WORKING_DIR_SUFFIXES, "working_dir")
    return value


def check_py_modules(value: Any) -> list[str]:
    """Directories, files, wheels or URIs."""
    if not isinstance(value, list):
        raise TypeError(f"`py_modules` must be a list of strings, got {type(value)}.")
    for module in value:
        if not isinstance(module, str):
            raise TypeError(f"`py_module` must be a string, got {type(module)}.")
        _check_place(module, PY_MODULES_SUFFIXES, "py_modules")
    return value


def check_no_local_paths(env: dict[str, Any]) -> None:
    """What a task or an actor may not have: packages that would have to be taken along first.

    Raises:
        ValueError: a local path.
    """
    working_dir = env.get("working_dir")
    if working_dir:
        _check_uri(working_dir, WORKING_DIR_SUFFIXES, "working_dir")
    for module in env.get("py_modules") or ():
        _check_uri(module, PY_MODULES_SUFFIXES, "py_modules")


def check_excludes(value: Any) -> list[str] | None:
    """Patterns as in a ``.gitignore``."""
    if not (isinstance(value, list) and all(isinstance(pattern, str) for pattern in value)):
        raise TypeError(f"runtime_env['excludes'] must be of type List[str], got {type(value)}")
    return value or None


def check_conda(value: Any) -> Any:
    """The name of an environment, a file, or its contents."""
    if not isinstance(value, (str, dict)):
        raise TypeError(f"runtime_env['conda'] must be of type str or dict, got {type(value)}.")
    if isinstance(value, str) and value.endswith((".yml", ".yaml")) and not os.path.isfile(value):
        raise ValueError(f"Can't find conda YAML file {value}.")
    return value


def check_env_vars(value: Any) -> dict[str, str] | None:
    """Text by name."""
    if not len(value):  # what has no length fails here, as in Ray
        return None
    if not isinstance(value, dict):
        raise TypeError(f"runtime_env['env_vars'] must be of type Dict[str, str], got {type(value)}")
    for key, text in value.items():
        for what, part in (("key", key), ("value", text)):
            if not isinstance(part, str):
                raise TypeError(
                    f"runtime_env['env_vars'] must be of type Dict[str, str], but the {what} {part} is of type "
                    f"{type(part)}"
                )
    return value


# ---- pip and uv ----


def check_pip(value: Any) -> dict[str, Any] | None:
    """What pip is to install."""
    if isinstance(value, dict):
        fields = ("packages", "pip_check", "pip_install_options", "pip_version")
        if not set(value) <= set(fields):
            raise ValueError(
                "runtime_env['pip'] can only have these fields: packages, pip_check, pip_install_options and "
                f"pip_version, but got: {list(value)}"
            )
        if "pip_check" in value and not isinstance(value["pip_check"], bool):
            raise TypeError(f"runtime_env['pip']['pip_check'] must be of type bool, got {type(value['pip_check'])}")
        _check_version("pip", value)
        _check_options("pip", value)
        if "packages" not in value:
            raise ValueError(f"runtime_env['pip'] must include field 'packages', but got {value}")
        packages = value["packages"]
        if not isinstance(packages, (str, list)):
            raise ValueError(f"runtime_env['pip']['packages'] must be of type str of list, got: {type(packages)}")
        result = {**value, "packages": requirements(packages), "pip_check": value.get("pip_check", False)}
    elif isinstance(value, str) or (isinstance(value, list) and all(isinstance(line, str) for line in value)):
        result = {"packages": requirements(value), "pip_check": False}
    else:
        raise TypeError(f"runtime_env['pip'] must be of type str or List[str], got {type(value)}")
    return result if result["packages"] else None


def check_uv(value: Any) -> dict[str, Any] | None:
    """What uv is to install."""
    if isinstance(value, dict):
        fields = ("packages", "uv_check", "uv_version", "uv_pip_install_options")
        if not set(value) <= set(fields):
            raise ValueError(
                "runtime_env['uv'] can only have these fields: packages, uv_check, uv_version and "
                f"uv_pip_install_options, but got: {list(value)}"
            )
        if "packages" not in value:
            raise ValueError(f"runtime_env['uv'] must include field 'packages', but got {value}")
        if "uv_check" in value and not isinstance(value["uv_check"], bool):
            raise TypeError(f"runtime_env['uv']['uv_check'] must be of type bool, got {type(value['uv_check'])}")
        _check_version("uv", value)
        _check_options("uv", value)
        packages = value["packages"]
        if not isinstance(packages, list):
            raise ValueError(f"runtime_env['uv']['packages'] must be of type list, got: {type(packages)}")
        result = {
            **value,
            "packages": requirements(packages),
            "uv_check": value.get("uv_check", False),
            "uv_pip_install_options": value.get("uv_pip_install_options", ["--no-cache"]),
        }
    elif isinstance(value, str) or (isinstance(value, list) and all(isinstance(line, str) for line in value)):
        result = {"packages": requirements(value), "uv_check": False}
    else:
        raise TypeError(f"runtime_env['uv'] must be of type List[str], or dict, got {type(value)}")
    return result if result["packages"] else None


def _check_version(tool: str, value: dict[str, Any]) -> None:
    version = value.get(f"{tool}_version", "")
    if not isinstance(version, str):
        raise TypeError(f"runtime_env['{tool}']['{tool}_version'] must be of type str, got {type(version)}")


def _check_options(tool: str, value: dict[str, Any]) -> None:
    name = "pip_install_options" if tool == "pip" else "uv_pip_install_options"
    options = value.get(name, [])
    if not isinstance(options, list):
        raise TypeError(f"runtime_env['{tool}']['{name}'] must be of type list[str] got {type(options)}")
    for index, option in enumerate(options):
        if not isinstance(option, str):
            raise TypeError(
                f"runtime_env['{tool}']['{name}'] must be of type list[str] got {type(option)} for {index}-th item."
            )


def requirements(packages: str | list[str]) -> list[str]:
    """The lines of a requirements file, or those given; each once, in their order.

    Raises:
        ValueError: there is no such file.
    """
    if isinstance(packages, str):
        try:
            with open(packages, encoding="utf-8") as file:
                packages = file.read().strip().split("\n")
        except OSError:
            raise ValueError(f"{packages} is not a valid file") from None
    return list(dict.fromkeys(packages))


#: In the order in which a `RuntimeEnv` shows them.
CHECKS: dict[str, Callable[[Any], Any]] = {
    "py_modules": check_py_modules,
    "working_dir": check_working_dir,
    "excludes": check_excludes,
    "conda": check_conda,
    "pip": check_pip,
    "uv": check_uv,
    "env_vars": check_env_vars,
}
