"""Runs files of programs ahead of the tests that ask for their answers, two at a time: much of a run is waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from .catalog import program_file

AT_ONCE = 2
Answers = TypeVar("Answers")


@contextmanager
def running_ahead(run: Callable[[str], Answers], names: Sequence[str]) -> Iterator[Callable[[str], Answers]]:
    """The answers of a file, by its name.

    Args:
        run: gives the answers of a file.
        names: the files that will be asked for, in that order. One with a program that must be alone runs when it is
            asked for, and after all others.
    """
    alone = {name for name in names if any(entry.alone for entry in program_file(name).programs)}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {name: pool.submit(run, name) for name in names if name not in alone}

        def answers(name: str) -> Answers:
            if name not in futures:
                wait(futures.values())
                futures[name] = pool.submit(run, name)
            return futures[name].result()

        try:
            yield answers
        finally:
            for future in futures.values():
                future.cancel()
