"""Memory for blocks is taken again when nobody looks at it, and not before."""

from __future__ import annotations

import threading

from fscore.runtime.frames import Frames

SIZE = 1 << 16


def test_a_frame_is_taken_again_once_the_last_view_is_gone() -> None:
    frames = Frames(SIZE, 4)
    first = frames.take()
    first[:4] = b"mine"
    part = first.toreadonly()[:4]
    del first
    other = frames.take()
    other[:4] = b"else"
    assert bytes(part) == b"mine"
    del part, other
    again = [frames.take() for _ in range(2)]
    assert {bytes(view[:4]) for view in again} == {b"mine", b"else"}


def test_more_than_are_kept_are_given_and_not_kept() -> None:
    frames = Frames(SIZE, 2)
    views = [frames.take() for _ in range(5)]
    for number, view in enumerate(views):
        assert len(view) == SIZE
        view[:] = bytes([number + 1]) * SIZE
    assert [view[-1] for view in views] == [1, 2, 3, 4, 5]
    del views, view
    assert sorted(view[0] for view in [frames.take() for _ in range(3)]) == [0, 1, 2]


def test_no_two_threads_get_the_same_frame() -> None:
    frames = Frames(SIZE, 8)
    bad: list[int] = []

    def work(number: int) -> None:
        for _ in range(300):
            view = frames.take()
            view[:] = bytes([number]) * SIZE
            if bytes(view) != bytes([number]) * SIZE:
                bad.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bad == []
