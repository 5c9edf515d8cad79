from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.db.sample_codec import SampleCodec
from exporter.db.spool import Spool
from exporter.errors import StorageError
from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch
from exporter.model.staleness import STALE_NAN, stale_mask
from tests.helpers.clock import FakeClock

A, B, C = (LabelSet.of({"__name__": "m", "s": name}) for name in "abc")


def _batch(ts_ms: int, **values: float) -> SampleBatch:
    labels = tuple(LabelSet.of({"__name__": "m", "s": name}) for name in values)
    return SampleBatch(ts_ms, labels, np.array(list(values.values())))


def _plain(batch: SampleBatch) -> tuple[int, dict[str, float]]:
    return batch.ts_ms, {one.get("s"): value for one, value in zip(batch.labels, batch.values, strict=True)}


def _open(folder: Path, **bounds: int) -> Spool[SampleBatch]:
    return Spool(folder, SampleCodec(), FakeClock(), **bounds)


def _drain(spool: Spool[SampleBatch], max_rows: int = 1000) -> list[tuple[int, dict[str, float]]]:
    drained = []
    while (portion := spool.read(max_rows)) is not None:
        drained.extend(_plain(batch) for batch in portion.items)
        spool.commit(portion)
    return drained


def test_comes_back_oldest_first_and_leaves_no_file(tmp_path: Path) -> None:
    """What went in comes out in the same order, and an empty spool has no segment."""
    spool = _open(tmp_path)
    spool.append([_batch(1, a=1.0, b=2.0), _batch(2, a=3.0, b=4.0)])
    spool.append([_batch(3, b=5.0, c=6.0)])
    assert (spool.batches, spool.rows) == (3, 6)
    assert _drain(spool) == [(1, {"a": 1, "b": 2}), (2, {"a": 3, "b": 4}), (3, {"b": 5, "c": 6})]
    assert spool.is_empty
    assert not list(tmp_path.glob("*.spool"))
    spool.close()


def test_an_uncommitted_portion_is_read_again(tmp_path: Path) -> None:
    """Reading alone removes nothing; a commit moves on by exactly that portion."""
    spool = _open(tmp_path)
    spool.append([_batch(ts, a=ts) for ts in range(1, 6)])
    first = spool.read(2)
    assert first is not None
    assert [batch.ts_ms for batch in first.items] == [1, 2]
    again = spool.read(2)
    assert again is not None
    assert [batch.ts_ms for batch in again.items] == [1, 2]
    spool.commit(again)
    assert spool.rows == 3
    assert [ts for ts, _ in _drain(spool, 2)] == [3, 4, 5]
    spool.close()


def test_survives_the_process(tmp_path: Path) -> None:
    """kill -9 right after an append loses nothing: the next process finds it."""
    script = (
        "import os, pathlib, sys, numpy; from exporter.clock import SystemClock\n"
        "from exporter.db.spool import Spool; from exporter.db.sample_codec import SampleCodec\n"
        "from exporter.model.labels import LabelSet; from exporter.model.samples import SampleBatch\n"
        "spool = Spool(pathlib.Path(sys.argv[1]), SampleCodec(), SystemClock())\n"
        "spool.append([SampleBatch(7, (LabelSet.of({'__name__': 'm', 's': 'a'}),), numpy.array([1.5]))])\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    spool = _open(tmp_path)
    assert spool.rows == 1
    assert _drain(spool) == [(7, {"a": 1.5})]
    spool.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """A second user of the folder is told so."""
    spool = _open(tmp_path)
    with pytest.raises(StorageError, match="in use by another exporter"):
        _open(tmp_path)
    spool.close()
    _open(tmp_path).close()


@pytest.mark.parametrize("cut", [1, 5, 13, 14, 30])
def test_a_torn_last_frame_costs_only_itself(tmp_path: Path, cut: int) -> None:
    """Whatever the place of the tear, the frames before it come back and the spool goes on working."""
    spool = _open(tmp_path)
    spool.append([_batch(1, a=1.0), _batch(2, a=2.0)])
    spool.close()
    (path,) = tmp_path.glob("*.spool")
    path.write_bytes(path.read_bytes()[:-cut])
    spool = _open(tmp_path)
    spool.append([_batch(3, a=3.0)])
    drained = _drain(spool)
    assert drained[0] == (1, {"a": 1})
    assert drained[-1] == (3, {"a": 3})
    assert spool.is_empty
    spool.close()


def test_a_damaged_frame_is_counted_and_ends_its_segment(tmp_path: Path) -> None:
    """A wrong checksum: what stands before it is used, what stands behind it is counted as lost."""
    spool = _open(tmp_path)
    spool.append([_batch(ts, a=ts) for ts in (1, 2, 3)])
    spool.close()
    (path,) = tmp_path.glob("*.spool")
    raw = bytearray(path.read_bytes())
    raw[-30] ^= 0xFF  # in the last but one batch's values or head
    path.write_bytes(raw)
    spool = _open(tmp_path)
    drained = _drain(spool)
    assert drained == [(ts, {"a": ts}) for ts in (1, 2, 3)][: len(drained)]
    assert len(drained) + spool.corrupt_rows == 3
    assert spool.corrupt_rows >= 1
    assert spool.is_empty
    spool.close()


def test_a_foreign_file_in_the_folder_is_not_believed(tmp_path: Path) -> None:
    """A segment without our mark holds nothing, and goes."""
    (tmp_path / "000000000007.spool").write_bytes(b"something else")
    spool = _open(tmp_path)
    assert spool.is_empty
    spool.append([_batch(1, a=1.0)])
    assert _drain(spool) == [(1, {"a": 1})]
    spool.close()


def test_the_bound_drops_the_oldest_segments_and_counts_their_rows(tmp_path: Path) -> None:
    """Beyond the bound the newest samples are the ones that are kept."""
    spool = _open(tmp_path, max_bytes=2000, segment_bytes=300)
    dropped = sum(spool.append([_batch(ts, a=ts, b=ts, c=ts)]) for ts in range(60))
    assert dropped == spool.dropped_rows > 0
    assert spool.size_bytes <= 2000
    left = [ts for ts, _ in _drain(spool)]
    assert left == list(range(60 - len(left), 60))
    assert 3 * len(left) + dropped == 180
    spool.close()


def test_a_portion_dropped_for_want_of_space_is_committed_in_vain(tmp_path: Path) -> None:
    """Committing what the bound has dropped meanwhile touches nothing else."""
    spool = _open(tmp_path, max_bytes=400, segment_bytes=100)
    spool.append([_batch(1, a=1.0)])
    portion = spool.read(10)
    assert portion is not None
    for ts in range(2, 20):
        spool.append([_batch(ts, a=ts)])
    rows = spool.rows
    spool.commit(portion)
    assert spool.rows == rows
    spool.close()


def test_markers_and_odd_labels_come_back_bit_for_bit(tmp_path: Path) -> None:
    """Staleness markers, infinities, zero characters and lone surrogates survive the disk."""
    odd = LabelSet.of({"__name__": "m", "text": 'a"\\\n\x00\udcff ü 💥'})
    values = np.array([STALE_NAN, np.inf])
    spool = _open(tmp_path)
    spool.append([SampleBatch(1, (odd, A), values)])
    portion = spool.read(10)
    assert portion is not None
    (batch,) = portion.items
    assert batch.labels == (odd, A)
    assert stale_mask(batch.values).tolist() == [True, False]
    spool.close()


_BATCHES = st.lists(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(allow_nan=False), min_size=1, max_size=6),
    max_size=12,
)


@settings(max_examples=40)
@given(batches=_BATCHES, group=st.integers(1, 4), portion_rows=st.integers(1, 20), reopen=st.booleans())
def test_any_sequence_comes_back_whole_and_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[dict[str, float]],
    group: int,
    portion_rows: int,
    reopen: bool,
) -> None:
    """Whatever the grouping, the segment borders and a restart: each batch once, in order."""
    folder = tmp_path_factory.mktemp("spool")
    spool = _open(folder, segment_bytes=200)
    sent = [_batch(number, **values) for number, values in enumerate(batches)]
    for lo in range(0, len(sent), group):
        spool.append(sent[lo : lo + group])
    if reopen:
        spool.close()
        spool = _open(folder)
    assert spool.rows == sum(map(len, sent))
    assert _drain(spool, portion_rows) == [_plain(batch) for batch in sent]
    spool.close()
