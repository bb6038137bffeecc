"""Every promise of what is built has a program, every program an answer, and the table says so."""

from __future__ import annotations

from collections import Counter

from .answers import FOLDER, StoredAnswers
from .bullets import BULLETS, OPEN_AREAS, all_keys
from .catalog import all_files
from .table import PATH, programs_by_bullet, table


def test_every_promise_of_what_is_built_has_a_program() -> None:
    programs = programs_by_bullet()
    built = [f"{area}/{key}" for area, bullets in BULLETS.items() if area not in OPEN_AREAS for key in bullets]
    assert [bullet for bullet in built if not programs[bullet]] == []


def test_every_program_stands_for_known_promises() -> None:
    unknown = {
        f"{file.name}.{entry.name}": [bullet for bullet in entry.bullets if bullet not in all_keys()]
        for file in all_files()
        for entry in file.programs
    }
    assert {name: bullets for name, bullets in unknown.items() if bullets} == {}
    assert all(entry.bullets for file in all_files() for entry in file.programs)


def test_the_areas_are_those_of_the_promises() -> None:
    assert {file.area for file in all_files()} | set(OPEN_AREAS) <= set(BULLETS)


def test_no_two_programs_of_a_file_have_one_name() -> None:
    names = Counter(f"{file.name}.{entry.name}" for file in all_files() for entry in file.programs)
    assert [name for name, count in names.items() if count > 1] == []


def test_every_program_has_an_answer_that_ray_gave_to_this_text() -> None:
    stale = {file.name: StoredAnswers.load(file.name).stale(file) for file in all_files()}
    assert {name: programs for name, programs in stale.items() if programs} == {}, "python -m tests.differential.record"


def test_every_answers_file_has_programs_and_names_its_versions() -> None:
    files = {file.name for file in all_files()}
    assert {path.stem for path in FOLDER.glob("*.json")} == files
    versions = [(StoredAnswers.load(name).ray, StoredAnswers.load(name).python) for name in files]
    assert all(ray and python for ray, python in versions)


def test_deviations_have_a_reason_and_an_answer_of_miniray() -> None:
    for file in all_files():
        stored = StoredAnswers.load(file.name)
        for entry in file.programs:
            assert (entry.deviates is None) == ("miniray" not in stored.programs[entry.name]), entry.name


def test_the_table_is_up_to_date() -> None:
    assert PATH.read_text() == table(), "python -m tests.differential.table"
