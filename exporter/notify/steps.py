"""Long work in steps: a generator that yields each few milliseconds, so that its driver can let others run.
Pure."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import TypeVar

_T = TypeVar("_T")
Steps = Generator[None, None, _T]
SLICE = 100  # alerts between two yields; each costs some 10 to 50 us


def sliced(items: Iterable[_T], size: int = SLICE) -> Iterator[list[_T]]:
    """The items in lists of at most `size`, each made when it is asked for."""
    source = iter(items)
    while found := list(islice(source, size)):
        yield found


def finish(steps: Steps[_T]) -> _T:
    """Do all that is left without a break; what the steps return."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
