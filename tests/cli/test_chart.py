"""The chart in the terminal."""

from __future__ import annotations

from exporter.cli.chart import canvas


def filled(rows: list[list[tuple[str, int]]]) -> list[int]:
    """Columns that have a dot."""
    return [x for x in range(len(rows[0])) if any(row[x][1] >= 0 for row in rows)]


def test_neighbours_are_joined() -> None:
    """A series of even steps is one line, whatever the distance of its points on the screen."""
    points = [(0, float(ts), float(ts % 3)) for ts in range(5)]
    assert filled(canvas(points, 40, 8)) == list(range(40))


def test_a_gap_stays_a_gap() -> None:
    """Where a point is missing no line is drawn, and no line joins two series."""
    points = [(0, 0.0, 1.0), (0, 1.0, 1.0), (0, 8.0, 1.0), (0, 9.0, 1.0), (1, 0.0, 2.0), (1, 1.0, 2.0)]
    assert filled(canvas(points, 100, 4)) == [*range(12), *range(88, 100)]


def test_a_single_point_is_drawn() -> None:
    """One sample is one dot, in the first corner."""
    rows = canvas([(0, 5.0, 7.0)], 10, 4)
    assert filled(rows) == [0]
    assert rows[0][0] == (chr(0x2801), 0)
