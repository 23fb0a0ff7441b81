"""Threads for reads: results and errors arrive, and nobody waits for a task that no thread will take."""

import concurrent.futures
import threading

import pytest

from data_pipelines.system.reader_threads import ReaderThreads


def test_results_and_errors_reach_whoever_waits():
    threads = ReaderThreads(2)
    assert [threads.submit(pow, 2, power).result(5) for power in range(4)] == [1, 2, 4, 8]
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 / 0).result(5)
    threads.close()


def test_a_task_submitted_after_the_end_is_cancelled():
    threads = ReaderThreads(1)
    threads.submit(int).result(5)
    threads.close()
    with pytest.raises(concurrent.futures.CancelledError):
        threads.submit(int).result(5)


def test_every_task_is_done_or_cancelled_however_close_falls_between_them():
    for _ in range(20):
        threads, futures, begun = ReaderThreads(2), [], threading.Event()

        def submit(threads=threads, futures=futures, begun=begun):
            for number in range(200):
                futures.append(threads.submit(int, number))
                if number == 50:
                    begun.set()

        others = [threading.Thread(target=submit) for _ in range(2)]
        for other in others:
            other.start()
        begun.wait(5)
        threads.close()
        for other in others:
            other.join(5)
        assert not concurrent.futures.wait(futures, timeout=5).not_done
