"""Several threads at once, for the tests."""

from __future__ import annotations

import threading
from collections.abc import Callable


def run_in_threads(works: list[Callable[[], None]]) -> None:
    """Run `works` at once and wait; a deadlock fails the test instead of hanging it."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads), "deadlock"
    if errors:
        raise errors[0]
