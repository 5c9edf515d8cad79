"""Which of several replicas notifies while the database cannot say. Pure.

While a replica reaches the database, the lock there decides. One that does not reach it asks the others over
HTTP what they claim: as long as one of them reaches the database it stays silent, since that one holds the
lock or will; if none does, the one with the best claim notifies. An answer that does not come claims nothing:
a message sent twice is better than none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Claim:
    """What a replica says of itself.

    `connected`: it reaches the database. `leading`: it holds the lock. `term` numbers the terms of office in
    the database: the one in which this replica notifies, 0 while it does not.
    """

    replica: str
    connected: bool = False
    leading: bool = False
    term: int = 0

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: object) -> Claim:
        """The inverse of `to_json`.

        Raises: ValueError for anything else.
        """
        if not isinstance(document, Mapping):
            raise ValueError("not a claim")
        replica, connected, leading, term = (
            document.get(name) for name in ("replica", "connected", "leading", "term")
        )
        if not (
            isinstance(replica, str)
            and isinstance(connected, bool)
            and isinstance(leading, bool)
            and isinstance(term, int)
        ):
            raise ValueError("not a claim")
        return cls(replica, connected, leading, term)


def acts(own: Claim, others: Iterable[Claim]) -> bool:
    """Whether a replica that does not reach the database notifies, by the claims that it heard.

    Among replicas that are all cut off the latest term goes first, then the lowest id.
    """
    heard = [other for other in others if other.replica != own.replica]
    if any(other.connected for other in heard):
        return False
    return all(_rank(own) < _rank(other) for other in heard)


def _rank(claim: Claim) -> tuple[int, str]:
    return -claim.term, claim.replica
