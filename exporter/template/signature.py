"""What a template can call: a function with Go parameter types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

ANY: Final = "interface {}"
STRING: Final = "string"
SAMPLE: Final = "*template.sample"
RESULT: Final = "template.queryResult"
INT: Final = "int"
DURATION: Final = "time.Duration"
TIME: Final = "time.Time"

NILABLE: Final = frozenset([ANY, SAMPLE, RESULT])


class CallError(Exception):
    """A function refuses its arguments; the message follows "error calling NAME: "."""


class Surroundings(Protocol):
    """What functions may ask of the expansion they run in."""

    @property
    def now_ms(self) -> int:
        """The evaluation time, Unix milliseconds."""

    @property
    def external_url(self) -> str:
        """Where users reach this server."""

    def query(self, text: str, /) -> Sequence[tuple[Mapping[str, str], float]]:
        """Runs an instant query at the evaluation time."""


@dataclass(frozen=True, slots=True)
class Function:
    """A callable with the types of its fixed parameters, and of the repeated last one if there is one."""

    call: Callable[[Surroundings, Sequence[object]], object]
    params: tuple[str, ...] = ()
    variadic: str | None = None
    results: int = 1  # other than 1 (or a value and an error) cannot be called

    def param(self, at: int) -> str:
        """The type of the argument at an index."""
        return self.params[at] if at < len(self.params) else self.variadic or ANY
