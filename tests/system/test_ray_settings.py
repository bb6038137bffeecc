"""Settings under Ray's names: where they come from, what comes first, and what cannot be read."""

import json

import pytest

from miniray.system.ray_settings import setting, spilling_directory


def test_the_system_config_comes_before_the_environment_and_both_before_the_default(monkeypatch):
    assert setting({}, "a_number", 5) == 5
    monkeypatch.setenv("RAY_a_number", "7")
    assert setting({}, "a_number", 5) == 7
    assert setting({"a_number": 9}, "a_number", 5) == 9


@pytest.mark.parametrize(("text", "value"), [("1", True), ("true", True), ("0", False), ("False", False)])
def test_truth_is_read_as_ray_reads_it(monkeypatch, text, value):
    monkeypatch.setenv("RAY_a_switch", text)
    assert setting({}, "a_switch", not value) is value


def test_what_is_no_number_is_refused_by_name():
    with pytest.raises(ValueError, match="a_number must be a float, and is 'many'"):
        setting({"a_number": "many"}, "a_number", 0.5)


def test_the_directory_for_spilled_objects_is_found_where_ray_looks_and_in_its_order(monkeypatch):
    assert spilling_directory({}) == ""
    config = json.dumps({"type": "filesystem", "params": {"directory_path": ["/first", "/second"]}})
    assert spilling_directory({"object_spilling_config": config}) == "/first"
    monkeypatch.setenv("RAY_object_spilling_directory", "/environment")
    assert spilling_directory({"object_spilling_config": config}) == "/environment"
    assert spilling_directory({"object_spilling_directory": "/config"}) == "/config"
    assert spilling_directory({"object_spilling_directory": "/config"}, "/argument") == "/argument"


@pytest.mark.parametrize("config", ["nonsense", '{"type": "smart_open", "params": {"uri": "s3://b"}}', "{}"])
def test_a_configuration_that_no_single_machine_can_follow_is_refused(config):
    with pytest.raises(ValueError):
        spilling_directory({"object_spilling_config": config})
