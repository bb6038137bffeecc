"""Which programs say nothing about local mode, and why. All others answer there what they answer on Ray.

(The reasons do not stand at the programs: their text is what their stored answers were recorded for.)
"""

from __future__ import annotations

from .catalog import ProgramFile

PROCESSES = "it looks at processes: their ids, ends, signals, titles or main threads"
SHARED = "modules, classes and the environment belong to a process, and there is only one"
OUTPUT = "what tasks print is printed as it is: no prefix, nothing folded, nothing held back"
ENVIRONMENTS = "variables, directories and interpreters are those of a process, and there is only one"
OTHERS = "it joins the session of another process, or has another process join"

_PROGRAMS = {
    PROCESSES: {
        "actor_ends": "endings_that_run_the_hooks killing_skips_the_hooks hooks_that_raise a_hook_that_hangs_is_ended "
        "system_exit_in_methods handles_in_arguments_and_objects an_actor_that_another_actor_holds "
        "handles_by_name_are_weak the_own_handle_is_weak actors_of_a_task_end_with_it handles_that_a_task_returns "
        "actors_whose_owner_died actors_killed_from_outside killing_a_busy_actor killing_from_a_task "
        "processes_of_actors titles_of_actor_processes plain_actors_run_in_the_main_thread "
        "detached_actors_outlive_their_handles",
        "actor_retries": "restarts_that_run_out methods_run_again_after_a_death calls_that_are_not_retried "
        "what_a_restarted_actor_knows names_outlive_restarts actors_that_make_and_call_actors more_actors_than_cpus",
        "actors": "crashed_actors restarted_actors actors_end_with_their_last_handle",
        "cancellation": "force_kills_the_worker",
        "concurrency": "where_threaded_methods_run awaiting_the_dead",
        "devices": "gpus_of_a_task fractions_of_gpus_share_a_device",
        "error_texts": "text_of_a_crash_in_a_dependency",
        "error_types": "exits_of_tasks signals_in_tasks the_session_goes_on_after_crashes",
        "generators": "workers_that_die_end_the_stream workers_that_die_are_retried actors_that_die_end_the_stream",
        "memory_pressure": "task_without_retries task_with_retries actor_out_of_memory",
        "placement_groups": "devices_of_a_task_in_a_group a_removed_group_ends_its_actor",
        "state_api": "a_task_whose_worker_dies the_life_of_an_actor how_workers_have_ended workers_and_the_driver",
        "module_map": "the_table_of_actors",
        "task_runs": "tasks_have_their_own_processes a_worker_killed_from_outside process_titles "
        "custom_resources_bound_what_runs retries_after_worker_death three_retries_by_default "
        "workers_leave_after_max_calls children_outlive_parents_that_do_not_wait",
        "utilities": "processes_and_initializers children_that_are_replaced",
        "worker_processes": "workers_are_there_before_the_work there_may_be_more_cpus_than_the_machine_has "
        "workers_beyond_the_cpus_leave_when_they_are_idle tasks_that_may_run_once_on_workers_that_leave",
    },
    SHARED: {
        "cancellation": "calls_that_raise_though_cancelled calls_of_async_actors coroutines_that_await_a_task",
        "concurrency": "errors_of_coroutines",
        "error_types": "errors_of_local_classes base_exceptions exceptions_that_cannot_be_pickled "
        "exceptions_unknown_to_the_driver",
        "task_calls": "what_cannot_be_imported_says_so",
        "task_runs": "omp_threads_follow_cpus",
    },
    OUTPUT: {
        "output": "prefixes_of_tasks_and_actors streams_of_workers lines_of_odd_shapes order_of_lines_of_one_worker "
        "repeated_lines_are_counted repeated_lines_if_so_asked no_output_of_workers_if_so_asked",
        "sessions": "what_workers_print",
    },
    ENVIRONMENTS: {
        "runtime_env_jobs": "a_hook a_hook_by_name a_hook_that_fails a_working_directory "
        "an_archive_as_working_directory environments_in_job_configs "
        "excludes_by_environment_variables modules_of_a_job",
        "runtime_env_tasks": "a_wheel_of_ones_own archives_by_uri fields_that_nobody_knows hooks_of_tasks "
        "interpreters_of_their_own options_and_decorators packages_that_cannot_be_had "
        "packages_that_the_driver_does_not_have set_up_that_takes_too_long variables_that_refer_to_others "
        "workers_of_one_environment",
        "runtime_envs": "environment_variables threads_that_the_environment_sets",
    },
    OTHERS: {
        "actor_ends": "detached_actors_outlive_their_driver actors_end_with_their_driver",
        "output": "lines_of_joining",
        "second_drivers": "drivers_attach_by_address_auto_or_plainly",
        "sessions": "arguments_that_do_not_fit_an_address a_second_driver_joins_by_address "
        "environment_variables_name_the_address addresses_where_nobody_is",
    },
}

#: file -> program -> why it does not apply
NOT_APPLICABLE: dict[str, dict[str, str]] = {}
for _reason, _files in _PROGRAMS.items():
    for _file, _names in _files.items():
        NOT_APPLICABLE.setdefault(_file, {}).update(dict.fromkeys(_names.split(), _reason))


def applicable(file: ProgramFile) -> list[str]:
    """The programs of a file that say something about local mode."""
    return [entry.name for entry in file.programs if entry.name not in NOT_APPLICABLE.get(file.name, {})]
