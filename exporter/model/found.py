"""What a label query found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """Items in order, and what the user should know about them."""

    items: Sequence[T]
    warnings: tuple[str, ...] = ()
