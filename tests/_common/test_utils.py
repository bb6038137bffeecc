"""The small functions of `ray._common.utils`."""

import threading

from miniray._common.utils import get_or_create_event_loop


def check_the_loop_of_this_thread():
    first = get_or_create_event_loop()
    assert get_or_create_event_loop() is first
    assert first.run_until_complete(same_as_running(first))
    first.close()
    second = get_or_create_event_loop()
    assert second is not first and not second.is_closed()
    assert get_or_create_event_loop() is second
    second.close()


async def same_as_running(loop):
    return get_or_create_event_loop() is loop


def test_a_thread_keeps_the_event_loop_that_was_made_for_it():
    failed = []

    def body():
        try:
            check_the_loop_of_this_thread()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(30)
    assert not failed and not thread.is_alive()


def test_the_main_thread_keeps_its_event_loop_and_is_not_warned():
    check_the_loop_of_this_thread()
