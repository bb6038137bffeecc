"""What workers print, and what sessions say: prefixes, streams, repetitions, the lines of init.

Each program runs a script and looks at what that printed. Lines of several processes come in any order.
"""

# mypy: ignore-errors
from __future__ import annotations

import re

from ..catalog import program
from ..normalise import normalise_text
from ..observe import run_script

AREA = "output"
SESSION = {"num_cpus": 2}

BEGIN = """
import logging, os, subprocess, sys, time
import ENGINE as ray
ray.init(num_cpus=4, include_dashboard=False, logging_level="ERROR", **OPTIONS)

def settle(seconds=2):
    # Ray's output comes when its log monitor has looked again.
    time.sleep(seconds)

"""


def printed(ray, source, options="{}", env=None, ordered=False):
    """What a script that starts a session prints: the lines of stdout and of stderr."""
    finished = run_script(ray, BEGIN.replace("**OPTIONS", f"**{options}") + source, env=env)
    # By their words, and not by the ids of the processes.
    streams = [[normalise_text(line) for line in lines] for lines in (finished["out"], finished["err"].splitlines())]
    return [finished["code"], *(lines if ordered else sorted(lines) for lines in streams)]


@program("output/prefix", fresh=True)
def prefixes_of_tasks_and_actors(ray):
    return printed(
        ray,
        """
@ray.remote
def inner():
    print("from an inner task")

@ray.remote
def task():
    ray.get(inner.remote())
    print("from a task")

@ray.remote
class Actor:
    def __init__(self):
        print("from the constructor")

    def method(self):
        print("from a method")

@ray.remote
class Named:
    def __repr__(self):
        return "Named(5)"

    def method(self):
        print("from an actor with a repr")

actor, named = Actor.remote(), Named.remote()
ray.get([task.remote(), task.options(name="renamed").remote(), actor.method.remote(), named.method.remote()])
settle()
""",
    )


@program("output/prefix", fresh=True)
def streams_of_workers(ray):
    return printed(
        ray,
        """
@ray.remote
def task():
    print("to stdout")
    print("to stderr", file=sys.stderr)
    logging.getLogger("mine").warning("from a logger")
    subprocess.run(["echo", "from a child"], check=True)
    os.system("echo from a shell")
    sys.stdout.write("without an end")
    sys.stdout.flush()

ray.get(task.remote())
settle()
""",
    )


@program("output/prefix", fresh=True)
def lines_of_odd_shapes(ray):
    return printed(
        ray,
        """
@ray.remote
def task():
    print("one\\ntwo\\n\\nfour")
    print("  indented")
    print("tab\\tand ümlaut")
    print()
    print("a", "b", sep="-", end="|")
    print("after")
    print("x" * 300)

ray.get(task.remote())
settle()
""",
        ordered=True,
    )


@program("output/prefix", fresh=True)
def order_of_lines_of_one_worker(ray):
    return printed(
        ray,
        """
@ray.remote
class Counter:
    def count(self, begin):
        for number in range(begin, begin + 5):
            print("number", chr(97 + number))

counter = Counter.remote()
ray.get([counter.count.remote(0), counter.count.remote(5)])
settle()
""",
        ordered=True,
    )


@program("output/prefix", "output/init-lines", fresh=True)
def no_output_of_workers_if_so_asked(ray):
    return printed(
        ray,
        """
@ray.remote
def task():
    print("from a task")

ray.get(task.remote())
print("from the driver")
settle()
""",
        options='{"log_to_driver": False}',
    )


REPEATED = """
@ray.remote(num_cpus=1)
def task(text):
    time.sleep(0.3)
    if text:
        print(text)

ray.get([task.remote("") for _ in range(4)])  # four workers are there now
ray.get([task.remote("the same words") for _ in range(4)])
settle(7)
"""


@program("output/dedup", fresh=True)
def repeated_lines_are_counted(ray):
    lines = printed(ray, REPEATED)
    return [lines, [line.count("repeated 3x across cluster") for line in lines[1]]]


@program("output/dedup", fresh=True)
def repeated_lines_if_so_asked(ray):
    return printed(ray, REPEATED.replace("settle(7)", "settle()"), env={"RAY_DEDUP_LOGS": "0"})


@program("output/init-lines", fresh=True)
def lines_of_init(ray):
    finished = run_script(
        ray,
        """
        import ENGINE as ray
        ray.init(num_cpus=1, include_dashboard=False)
        print(ray.get(ray.remote(lambda: 1).remote()))
        ray.shutdown()
        ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
        """,
    )
    said = [re.sub(r"^[\d-]+ [\d:,]+\t(\w+) \S+ -- ", r"TIME \1 -- ", line) for line in finished["err"].splitlines()]
    return [finished["code"], finished["out"], said]


@program("output/init-lines", fresh=True)
def lines_of_joining(ray):
    context = ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
    finished = run_script(
        ray,
        """
        import sys
        import ENGINE as ray
        ray.init(address=sys.argv[1])
        print(ray.get(ray.remote(lambda: 1).remote()))
        """,
        context.address_info["gcs_address"],
    )
    said = [re.sub(r"^[\d-]+ [\d:,]+\t(\w+) \S+ -- ", r"TIME \1 -- ", line) for line in finished["err"].splitlines()]
    return [finished["code"], finished["out"], said]


@program("output/init-lines", fresh=True)
def nothing_is_said_at_the_end(ray):
    return printed(
        ray,
        """
@ray.remote
class Actor:
    def get(self):
        return 1

actor = Actor.remote()
ray.get(actor.get.remote())
pending = [ray.remote(lambda: time.sleep(30)).remote() for _ in range(3)]
print("end", flush=True)
""",
    )
