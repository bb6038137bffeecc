"""The benchmarks run, with sizes that take no time; how fast anything was is no matter here."""

import json
import os
import subprocess
import sys

import pytest

import benchmarks.__main__ as command
from benchmarks.alternation import run_trials
from benchmarks.claims import Claim, NotHere, Size, all_claims
from benchmarks.engines import (
    TOKEN_VARIABLE,
    Engine,
    Failed,
    end_all,
    find_engine,
    measure_in_session,
    processes_with,
    pss_megabytes,
)
from benchmarks.rates import rate

TINY = Size(seconds=0.001, calls=2, actors=1, bytes=1 << 20, repeats=1)
needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux")


@pytest.fixture(scope="module")
def engine():
    found = find_engine("miniray")
    assert found is not None
    return found


def test_a_rate_calls_its_step_before_the_clock_runs_and_after():
    calls = []
    assert rate(lambda: calls.append(1), 0.0, per_step=10) > 0
    assert len(calls) == 2


def test_every_claim_in_a_session_runs_on_miniray(engine):
    names = [claim.name for claim in all_claims() if claim.in_session is not None]
    figures = measure_in_session(engine, names, TINY)
    assert sorted(figures) == sorted(names)
    # What this installation lacks is told in words.
    wrong = {name: figure for name, figure in figures.items() if not isinstance(figure, str) and figure <= 0}
    assert wrong == {}
    assert [text for text in figures.values() if isinstance(text, str) and "Error" in text] == []


@needs_proc
@pytest.mark.parametrize("claim", [claim for claim in all_claims() if claim.alone is not None], ids=lambda c: c.name)
def test_every_claim_outside_a_session_runs_on_miniray(engine, claim):
    assert claim.alone is not None
    assert all(figure > 0 for figure in claim.alone(engine, TINY))


def test_every_limit_that_a_claim_or_the_page_names_is_measured(engine):
    measured = json.loads(engine.run(["-c", _LIMITS]).output)
    assert {claim.limit for claim in all_claims() if claim.limit} <= set(measured)
    from benchmarks.table import _TRICKS

    assert {name for _, with_it, without_it, *_ in _TRICKS for name in (with_it, without_it)} <= set(measured)
    assert all(figure > 0 for figure in measured.values())


#: In a process of its own: the limits fork.
_LIMITS = f"""
import json
from benchmarks import limits
if __name__ == "__main__":
    print(json.dumps(limits.measure(0.001, {1 << 20}, 1)))
"""


def test_an_engine_that_is_not_installed_is_not_there():
    assert find_engine("no_such_module_anywhere") is None
    assert find_engine("miniray", "/no/such/python") is None


def test_a_process_that_fails_is_reported_with_its_last_words(engine):
    with pytest.raises(Failed, match="exit code 3\n.*the last words"):
        engine.run(["-c", "import sys; print('the last words', file=sys.stderr); sys.exit(3)"])


def test_a_process_that_hangs_is_ended(engine):
    with pytest.raises(Failed, match="not done within"):
        engine.run(["-c", "import time; time.sleep(1000)"], timeout=0.2)


@needs_proc
def test_what_a_process_leaves_running_is_found_by_its_token_and_ended():
    token = "a-token-of-this-test"
    child = subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True); import time; time.sleep(1000)"],
        env={**os.environ, TOKEN_VARIABLE: token},
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        assert processes_with(token) == [child.pid]
        assert pss_megabytes([child.pid]) > 0
        child.kill()  # a child of ours stays a zombie until it is reaped, and has no environment any more
        child.wait()
        end_all(token)
    assert processes_with(token) == []


def test_engines_take_turns_and_what_cannot_be_measured_is_noted(monkeypatch):
    order = []

    def note(engine, size):
        order.append(engine.name)
        if engine.name == "ray":
            raise NotHere("not today")
        return [1.0, 3.0, 2.0]

    monkeypatch.setattr(Engine, "run", lambda self, arguments, timeout=0: type("Ended", (), {"output": "{}"}))
    engines = [Engine("miniray", "python", "1", "3"), Engine("ray", "python", "2", "3")]
    claim = Claim("a claim", "ms", "less", alone=note)
    results = run_trials([claim], engines, TINY, 3, True, lambda line: None)
    assert order == ["miniray", "ray", "ray", "miniray", "miniray", "ray"]
    assert results.of(claim, "miniray") == [2.0, 2.0, 2.0]
    assert results.notes == {"a claim": {"ray": "not today"}}


def test_the_command_prints_the_table_and_writes_json_and_page(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "QUICK", TINY)
    figures, page = tmp_path / "figures.json", tmp_path / "page.md"
    command.main(["--quick", "--no-ray", "--only", "small value", "--json", str(figures)])
    printed = capsys.readouterr().out
    assert "put and get of a small value" in printed
    command.main(["--from", str(figures), "--only", "small value", "--write", str(page)])
    assert capsys.readouterr().out == printed
    assert "python -m benchmarks --no-ray --quick --only 'small value'" in page.read_text(encoding="utf-8")


def test_a_pattern_that_fits_nothing_is_refused():
    with pytest.raises(SystemExit, match="--list names them"):
        command.main(["--only", "no such claim"])


def test_a_module_of_one_claim_is_a_command_of_its_own(capsys):
    command.main(["--list"], module="actor_plain")
    assert capsys.readouterr().out.splitlines() == ["actor call, sync", "actor calls, 1,000 in flight"]
