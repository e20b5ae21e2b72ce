"""Threads that stop together: each way in which one may end, and a queue with a bound."""

import threading
import time

import pytest
from outside import interrupt, within

from pgjax.recipes.threads import Channel, Crew, Stopped


def fill(channel: Channel, count: int) -> None:
    for i in range(count):
        channel.put(i)


def test_items_come_in_order_and_nothing_is_lost_where_the_queue_waits() -> None:
    with within(20), Crew() as crew:
        channel = Channel(crew, 2)
        crew.start("crew", fill, channel, 50)
        time.sleep(0.1)
        assert len(channel) == 2
        assert [channel.get() for _ in range(50)] == list(range(50))
        assert channel.dropped == 0


def test_a_full_queue_drops_its_oldest_and_counts_it() -> None:
    with within(20), Crew() as crew:
        channel = Channel(crew, 2, drop=True)
        for i in range(5):
            channel.put(i)
        assert (channel.dropped, channel.get(), channel.get()) == (3, 3, 4)


def test_the_exception_of_a_thread_leaves_the_block_whoever_waits_for_whom() -> None:
    def fail() -> None:
        raise ZeroDivisionError("planted")

    def block() -> None:
        with Crew() as crew:
            channel, full = Channel(crew, 1), Channel(crew, 1)
            crew.start("crew full", fill, full, 2)  # waits for room
            crew.start("crew empty", channel.get)
            time.sleep(0.05)
            crew.start("crew failing", fail)
            channel.get()

    with within(20), pytest.raises(ZeroDivisionError, match="planted") as caught:
        block()
    assert caught.value.__notes__ == ["in the thread 'crew failing'"]


def test_the_exception_of_the_block_stops_the_threads_and_the_first_one_wins() -> None:
    seen = []

    def last_word(crew: Crew) -> None:
        while not crew.stopped:
            time.sleep(0.01)
        seen.append("stopped")
        raise ValueError("later")

    def block() -> None:
        with Crew() as crew:
            crew.start("crew", last_word, crew)
            raise KeyError("first")

    with within(20), pytest.raises(KeyError, match="first"):
        block()
    assert seen == ["stopped"]


def test_an_earlier_exception_of_a_thread_wins_over_that_of_the_block() -> None:
    def fail() -> None:
        raise ZeroDivisionError("first")

    def block() -> None:
        with Crew() as crew:
            crew.start("crew", fail)
            while not crew.stopped:
                time.sleep(0.01)
            raise KeyError("later")

    with within(20), pytest.raises(ZeroDivisionError, match="first"):
        block()


def test_ctrl_c_wakes_whoever_waits() -> None:

    def block() -> None:
        with Crew() as crew:
            channel = Channel(crew, 1)
            crew.start("crew", fill, channel, 2)
            assert [channel.get(), channel.get()] == [0, 1]
            interrupt(0.1)
            channel.get()

    with within(20), pytest.raises(KeyboardInterrupt):
        block()


def test_an_exception_after_the_end_is_a_warning_and_a_thread_that_stays_is_named() -> None:
    def late(crew: Crew) -> None:
        while not crew.stopped:
            time.sleep(0.01)
        raise ValueError("late")

    with within(20), pytest.warns(UserWarning, match=r"after the end of the run: ValueError\('late'\)"), Crew() as crew:
        crew.start("crew", late, crew)
    done = threading.Event()
    with within(20):
        with pytest.warns(UserWarning, match="crew sleeper did not stop within 0.05 s"), Crew(patience=0.05) as crew:
            crew.start("crew sleeper", done.wait, 10.0)
        done.set()
        time.sleep(0.05)


def test_a_crew_that_has_stopped_takes_and_gives_nothing() -> None:
    with within(20), Crew() as crew:
        channel = Channel(crew, 2)
        channel.put(1)
        crew.stop()
        for call in (channel.get, lambda: channel.put(2)):
            with pytest.raises(Stopped):
                call()
