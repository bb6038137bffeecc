"""What a run of the benchmarks says: medians, ratios within a trial, goals, the text and the page."""

import json

import pytest

from benchmarks import table
from benchmarks.claims import Claim, Goal, all_claims, select
from benchmarks.results import Results, from_plain, paired_ratio, row, spread, to_plain

FAST = Claim("calls", "/s", "more", goals=(Goal("limit", 0.6), Goal("ray", 3.5)), limit="round_trips")
START = Claim("start", "ms", "less", goals=(Goal("figure", 250), Goal("ray", 20)))


def results_with(**figures):
    results = Results(machine={"CPU": "a test, 2 cores"}, command="python -m benchmarks --only test")
    for engine in ("miniray", "ray"):
        results.engines[engine] = {"version": "1", "python": "3"}
    for key, values in figures.items():
        name, _, engine = key.partition("_of_")
        claim = {"calls": FAST, "start": START}[name]
        for trial, value in enumerate(values):
            results.add(claim, engine, trial, value)
    return results


def test_the_spread_is_the_median_and_the_median_deviation_as_a_part_of_it():
    assert spread([90.0, 100.0, 130.0]) == (100.0, 0.1, 3)


def test_trials_without_a_figure_do_not_count():
    assert spread([None, 8.0, None]) == (8.0, 0.0, 1)
    assert spread([None]) is None
    assert spread([]) is None


def test_ratios_are_formed_within_a_trial():
    # The machine was four times slower in the second trial: the ratio is 2 all the same.
    assert paired_ratio([100.0, 25.0, 90.0], [50.0, 12.5, 45.0]) == 2.0


def test_without_a_common_trial_the_medians_are_compared():
    assert paired_ratio([None, 10.0], [5.0]) == 2.0
    assert paired_ratio([], [5.0]) is None


def test_more_is_better_means_so_many_times_faster_than_ray():
    results = results_with(calls_of_miniray=[10.0, 12.0], calls_of_ray=[2.0, 3.0])
    assert row(results, FAST).times_ray == 4.5


def test_less_is_better_means_so_many_times_less_than_ray():
    results = results_with(start_of_miniray=[100.0], start_of_ray=[4000.0])
    assert row(results, START).times_ray == 40.0


@pytest.mark.parametrize(("figure", "met"), [(59.0, False), (60.0, True)])
def test_a_goal_against_the_limit_is_met_from_its_part_on(figure, met):
    results = results_with(calls_of_miniray=[figure])
    results.add_limits(0, {"round_trips": 100.0})
    verdict = row(results, FAST).verdicts[0]
    assert (verdict.text, verdict.met) == ("60% of the limit", met)


@pytest.mark.parametrize(("figure", "met"), [(249.0, True), (250.0, False)])
def test_a_goal_of_a_figure_is_a_bound_that_is_not_reached(figure, met):
    verdict = row(results_with(start_of_miniray=[figure]), START).verdicts[0]
    assert (verdict.text, verdict.met) == ("under 250 ms", met)


def test_a_goal_against_ray_is_open_where_ray_was_not_measured():
    assert row(results_with(start_of_miniray=[100.0]), START).verdicts[1].met is None


def test_results_survive_json():
    results = results_with(calls_of_miniray=[1.0, 2.0])
    results.add_note(START, "ray", "not here")
    assert from_plain(json.loads(json.dumps(to_plain(results)))) == results


def test_the_table_shows_figures_ratios_and_whether_goals_are_met():
    results = results_with(calls_of_miniray=[900.0], calls_of_ray=[300.0])
    results.add_limits(0, {"round_trips": 1000.0})
    header, line = table.as_text(results, [FAST]).splitlines()[:2]
    assert header.split()[:3] == ["what", "miniray", "Ray"]
    cells = line.split("  ")
    assert [cell.strip() for cell in cells if cell.strip()] == [
        "calls", "900/s", "300/s", "3.00 x", "1,000/s", "90%", "60% of the limit; 3.5 x Ray", "yes; NO",
    ]  # fmt: skip


def test_a_claim_that_could_not_be_measured_says_why():
    results = results_with(calls_of_miniray=[900.0])
    results.add_note(FAST, "ray", "it broke")
    text = table.as_text(results, [FAST])
    assert "not here" in text
    assert "calls, ray: it broke" in text


def test_the_deviation_shows_from_two_trials_on():
    assert "±" not in table.as_text(results_with(calls_of_miniray=[1.0]), [FAST]).splitlines()[1]
    assert "± 50%" in table.as_text(results_with(calls_of_miniray=[1.0, 3.0]), [FAST]).splitlines()[1]


def test_the_page_names_machine_command_configuration_of_ray_and_where_ray_wins():
    results = results_with(calls_of_miniray=[10.0], calls_of_ray=[40.0])
    results.add_limits(0, {"zmq_round_trips_per_s": 300.0, "zmq_round_trips_through_a_thread_per_s": 100.0})
    page = table.as_page(results, [FAST])
    assert "a test, 2 cores" in page
    assert "    python -m benchmarks --only test\n" in page
    assert "RAY_AUTH_MODE=disabled" in page and "num_cpus=2" in page
    assert "* calls: 4.00 x miniray" in page
    assert "| 300/s | 100/s | 3.00 x |" in page


def test_the_page_says_where_nothing_was_measured():
    page = table.as_page(Results(command="x"), [FAST, START])
    assert "Ray was not there in this run." in page


def test_every_claim_has_a_name_of_its_own_and_one_way_to_be_measured():
    claims = all_claims()
    assert len({claim.name for claim in claims}) == len(claims)
    assert all((claim.in_session is None) != (claim.alone is None) for claim in claims)
    assert all(goal.kind in ("figure", "ray", "limit") for claim in claims for goal in claim.goals)
    assert all(claim.limit for claim in claims for goal in claim.goals if goal.kind == "limit")


def test_claims_are_chosen_by_parts_of_their_names():
    assert [claim.name for claim in select([FAST, START], "CALL")] == ["calls"]
    assert select([FAST, START], "") == [FAST, START]
    assert len(select([FAST, START], "calls, start")) == 2
    assert select([FAST, START], "no such claim") == []
