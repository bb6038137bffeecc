"""What workers print reaches the driver: whole, in order, marked, and before `shutdown` returns."""

import re

import pytest

from tests.faults.scripts import Program

pytestmark = [pytest.mark.fault, pytest.mark.timeout(60)]


def lines_of(text, timeout=30):
    """Run a script to its good end; the lines on its stdout and its stderr."""
    with Program(text) as program:
        program.succeed(timeout)
        # What the session itself has to say goes to the log.
        return [line.rstrip("\n") for line in program.out], [
            line.rstrip("\n") for line in program.err if "Ray instance" not in line
        ]


def bare(lines, name="f"):
    """The texts of lines with the right prefix, in order."""
    pattern = re.compile(rf"\({name} pid=\d+\) ?(.*)")
    return [match[1] for line in lines if (match := pattern.fullmatch(line))]


def test_lines_have_a_prefix_and_go_where_they_were_printed_to():
    out, err = lines_of(
        """
        ray.init(num_cpus=1)

        @ray.remote
        def f():
            print("to stdout")
            print("to stderr", file=sys.stderr)

        @ray.remote
        def g():
            print("from g")

        ray.get([f.remote(), g.options(name="another name").remote()])
        """
    )
    assert bare(out) == ["to stdout"]
    assert bare(err) == ["to stderr"]
    assert bare(out, "another name") == ["from g"]


def test_lines_printed_before_a_result_are_out_before_shutdown_returns():
    out, _ = lines_of(
        """
        for number in range(10):
            ray.init(num_cpus=1)

            @ray.remote
            def f():
                print("line", number)

            ray.get(f.remote())
            ray.shutdown()
            print("shut down", number, flush=True)
        """
    )
    texts = [text for line in out for text in (bare([line]) or [line])]
    assert texts == [text for number in range(10) for text in (f"line {number}", f"shut down {number}")]


def test_the_order_of_lines_is_kept_and_all_of_a_hundred_thousand_arrive():
    out, _ = lines_of(
        """
        ray.init(num_cpus=1)

        @ray.remote
        def f():
            for number in range(100_000):
                print("line", number)

        ray.get(f.remote())
        """
    )
    assert bare(out) == [f"line {number}" for number in range(100_000)]


def test_lines_arrive_while_the_task_still_runs():
    with Program(
        """
        ray.init(num_cpus=1)
        go = os.environ["MINIRAY_TMPDIR"] + "/go"

        @ray.remote
        def f():
            print("started")
            wait_for(lambda: os.path.exists(go), 30)

        ref = f.remote()
        print("go", go, flush=True)
        ray.get(ref)
        """
    ) as program:
        go = program.read("go")
        assert program.read("(f").endswith("started")
        with open(go, "w"):
            pass
        program.succeed()


def test_output_of_child_processes_and_of_c_code_is_output_of_the_task():
    out, err = lines_of(
        """
        ray.init(num_cpus=1)

        @ray.remote
        def f():
            import subprocess
            print("before", flush=True)
            subprocess.run(["sh", "-c", "echo from a child; echo its error >&2"], check=True)
            os.write(1, b"straight\\n")
            print("after")

        ray.get(f.remote())
        """
    )
    assert bare(out) == ["before", "from a child", "straight", "after"]
    assert bare(err) == ["its error"]


def test_an_unfinished_last_line_an_empty_line_and_bytes_that_are_no_text_are_printed():
    out, _ = lines_of(
        """
        ray.init(num_cpus=1)

        @ray.remote
        def f():
            print("äöü €")
            print()
            sys.stdout.flush()
            os.write(1, b"bad \\xff\\xfe byte\\n")
            print("no end", end="")

        ray.get(f.remote())
        """
    )
    assert bare(out) == ["äöü €", "", "bad \ufffd\ufffd byte", "no end"]


def test_what_a_worker_printed_just_before_it_was_killed_is_printed():
    out, err = lines_of(
        """
        ray.init(num_cpus=1)

        @ray.remote(max_retries=0)
        def f():
            print("last words", flush=True)
            print("last error", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

        try:
            ray.get(f.remote())
        except ray.exceptions.WorkerCrashedError:
            pass
        """
    )
    assert bare(out) == ["last words"]
    assert "last error" in bare(err)


def test_everything_lies_in_the_log_files_of_the_session_while_it_lives():
    lines_of(
        """
        import glob
        ray.init(num_cpus=2, log_to_driver=False)

        @ray.remote
        def f(number):
            print("line", number)
            print("error", number, file=sys.stderr)

        ray.get([f.remote(number) for number in range(10)])
        from miniray import api
        logs = api._session.paths.logs

        def written(ending):
            return sorted(line for path in glob.glob(logs + "/worker-*." + ending) for line in open(path))

        import warnings
        warnings.simplefilter("ignore")
        wait_for(lambda: written("out") == sorted(f"line {n}\\n" for n in range(10)))
        wait_for(lambda: written("err") == sorted(f"error {n}\\n" for n in range(10)))
        """
    )


def test_nothing_is_printed_with_log_to_driver_off():
    out, err = lines_of(
        """
        ray.init(num_cpus=1, log_to_driver=False)

        @ray.remote
        def f():
            print("unheard")
            print("unheard", file=sys.stderr)

        ray.get(f.remote())
        """
    )
    assert out == err == []


def test_equal_lines_of_several_workers_are_folded():
    out, _ = lines_of(
        """
        ray.init(num_cpus=4)

        @ray.remote
        def f(path):
            note(path, os.getpid())
            wait_for(lambda: len(appended(path)) == 4, 30)
            print("the same everywhere")

        ray.get([f.remote(os.environ["MINIRAY_TMPDIR"] + "/running") for _ in range(4)])
        """
    )
    texts = bare(out)
    assert texts[0] == "the same everywhere"
    assert re.sub(r"\x1b\[\d+m", "", texts[1]).startswith("the same everywhere [repeated 3x across cluster]")
    assert len(texts) == 2


def test_a_task_may_replace_and_close_its_streams():
    out, _ = lines_of(
        """
        ray.init(num_cpus=1)

        @ray.remote
        def f():
            import contextlib, io
            with contextlib.redirect_stdout(io.StringIO()) as captured:
                print("captured")
            print("got", captured.getvalue().strip())
            return 1

        @ray.remote
        def close():
            sys.stdout.close()
            return 2

        assert ray.get([f.remote(), close.remote()]) == [1, 2]
        """
    )
    assert bare(out) == ["got captured"]
