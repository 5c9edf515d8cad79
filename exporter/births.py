"""Mass births: Python's garbage collector stands aside while a thread makes many objects that stay.

Each full collection walks every object and stops all threads meanwhile, the event loop's too: some 100 ms
with a million objects. Objects born together that stay need no walk.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_MANY = 50_000  # objects born; fewer are walked in a few milliseconds
_FIRST = 20_000  # series of two objects each


@contextmanager
def mass_birth() -> Iterator[None]:
    """No automatic collection inside; if many objects were born they are set apart for ever after.

    Set apart are all objects that exist then. They are freed as usual when nobody refers to them; only
    garbage in circles that stood at that moment is never found. Where two threads are inside at once,
    collections begin again when the first to enter leaves.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            if gc.get_count()[0] >= _MANY:
                gc.freeze()
            gc.enable()


class Births:
    """Sets apart what was born little by little: at 20,000 births, and whenever a quarter more have come.

    So the times are few however long a program runs and its series come and go.
    """

    def __init__(self, set_apart: Callable[[], None] = gc.freeze) -> None:
        """`set_apart` puts every object that exists out of the collector's reach."""
        self._set_apart = set_apart
        self._total = 0
        self._next = _FIRST

    def add(self, born: int) -> None:
        """So many series were born."""
        self._total += born
        if self._total >= self._next:
            self._next = self._total + self._total // 4 + _FIRST
            self._set_apart()
