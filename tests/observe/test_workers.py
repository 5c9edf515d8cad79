"""Several processes of one app: one exposition, nothing lost however a process ends, bounded files."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Summary, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from exporter import WorkerRegistry
from exporter.errors import StorageError
from exporter.observe.monitor import Monitor
from exporter.web.exposition import ExpositionPage
from exporter.web.negotiate import Wanted
from tests.helpers.worker_program import work

ROOT = Path(__file__).parents[2]


def samples(text: str) -> dict[str, float]:
    return {
        str(sample.name) + "".join(f",{key}={value}" for key, value in sorted(sample.labels.items())): value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if (value := sample.value) is not None
    }


def page(registry: CollectorRegistry) -> dict[str, float]:
    return samples(generate_latest(registry).decode())


class Times:
    """Unix seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize("end", ["exit", "_exit", "term", "kill"])
def test_no_count_is_lost_when_forked_workers_end(tmp_path: Path, end: str, preload: bool) -> None:
    """Exit, os._exit, SIGTERM and SIGKILL: all that was counted is in the sum, and no file is left behind."""
    arguments = [str(tmp_path), "3", "500", end, *(["preload"] if preload else [])]
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.worker_program", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = samples(done.stdout)
    assert found["jobs_total,kind=all"] == 1500 + preload
    assert [found[f"jobs_total,kind=of-{number}"] for number in range(3)] == [500, 500, 500]
    assert (found["wait_seconds_count"], found["wait_seconds_sum"]) == (1500, 3 * 499)
    assert found["quantum_api_requests_total,endpoint=/x,method=GET,outcome=success,provider=app"] == 1500
    assert found["busy"] == 0  # the master's own; those of the dead are gone
    assert (found["quantum_workers"], found["quantum_workers_ended_total"]) == (1, 3)
    # another process reads what all of them left
    registry = WorkerRegistry(tmp_path)
    assert page(registry)["jobs_total,kind=all"] == 1500 + preload
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", "", ".keys", ".values"]
    registry.close()


def test_spawned_workers_count_into_one_exposition(tmp_path: Path) -> None:
    """Processes that share no memory, as uvicorn starts them, and are killed one after the other."""
    context = multiprocessing.get_context("spawn")
    registry = WorkerRegistry(tmp_path)
    for end in ("kill", "exit"):
        workers = [context.Process(target=work, args=(str(tmp_path), n, 200, end)) for n in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert page(registry)["jobs_total,kind=all"] == 800
    registry.close()


def test_readers_beside_workers_never_see_a_count_go_back(tmp_path: Path) -> None:
    """While workers are forked, count and are killed, every reading is at least the one before."""
    arguments = [str(tmp_path), "4", "2000", "kill"]
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.worker_program", *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    registry = WorkerRegistry(tmp_path)
    seen = [0.0]
    while program.poll() is None:
        seen.append(page(registry).get("jobs_total,kind=all", 0.0))
    seen.append(page(registry)["jobs_total,kind=all"])
    assert seen == sorted(seen)
    assert seen[-1] == 8000
    registry.close()


def test_gauges_are_merged_by_their_mode(tmp_path: Path) -> None:
    """sum, min, max, mostrecent, and all with a label pid; those of an ended process go."""
    first, second = WorkerRegistry(tmp_path), WorkerRegistry(tmp_path)
    for registry, value in ((first, 3.0), (second, 5.0)):
        for mode in ("livesum", "min", "livemax", "mostrecent", "all"):
            Gauge(f"g_{mode}", "G.", registry=registry, multiprocess_mode=mode).set(value)
    found = page(first)
    assert [found[f"g_{mode}"] for mode in ("livesum", "min", "livemax", "mostrecent")] == [8, 3, 5, 5]
    assert found[f"g_all,pid={os.getpid()}"] in (3, 5)  # one process here plays two
    second.close()
    assert page(first)["g_livesum"] == 3
    first.close()


def test_every_kind_survives(tmp_path: Path) -> None:
    """Counter, histogram and summary of an ended process, to the last bit; as one process would show them."""
    alone, shared, reader = CollectorRegistry(), WorkerRegistry(tmp_path), WorkerRegistry(tmp_path)
    for registry in (alone, shared):
        Counter("c", "C.", ["l"], registry=registry, unit="bytes").labels('a"\n').inc(1 / 3)
        Histogram("h", "H.", ["l"], registry=registry, buckets=(-1, 0.1, 2)).labels("é").observe(0.7)
        Summary("s", "S.", registry=registry).observe(1e300)
    shared.close()
    own = [line for line in generate_latest(reader).decode().splitlines() if "quantum_worker" not in line]
    library = [line for line in generate_latest(alone).decode().splitlines() if "_created" not in line]
    assert own == library
    reader.close()


def test_a_removed_label_set_stays_in_the_sum_until_nobody_used_it_for_long(tmp_path: Path) -> None:
    """A counter never goes back: what a process removed is kept for keep_s, then dropped and counted."""
    times = Times()
    first, second = (WorkerRegistry(tmp_path, keep_s=100, now=times) for _ in range(2))
    one, two = (Counter("c", "C.", ["l"], registry=registry) for registry in (first, second))
    one.labels("x").inc(5)
    two.labels("x").inc(2)
    two.labels("y").inc(1)
    one.remove("x")
    assert page(second)["c_total,l=x"] == 7
    second.close()
    assert page(first)["c_total,l=x"] == 7
    times.now += 101
    assert "c_total,l=x" not in page(first)
    assert page(first)["quantum_worker_label_sets_expired_total"] == 2
    one.labels("x").inc()
    assert page(first)["c_total,l=x"] == 6  # this process still had its own in the file
    first.close()


def test_files_do_not_grow_with_label_sets_that_go(tmp_path: Path) -> None:
    """A process that uses ever new label sets and removes them keeps its files small, and its gauges."""
    times = Times()
    registry = WorkerRegistry(tmp_path, keep_s=100, now=times)
    counter = Counter("c", "C.", ["l"], registry=registry)
    gauge = Gauge("g", "G.", registry=registry, multiprocess_mode="sum")
    gauge.set(7)
    held = counter.labels("held")
    sizes = []
    for turn in range(2000):
        counter.labels(str(turn)).inc()
        held.inc()
        counter.remove(str(turn))
        times.now += 1
        if turn % 100 == 99:
            found = page(registry)
            assert (found["g"], found["c_total,l=held"]) == (7, turn + 1)
            sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
    assert max(sizes[10:]) <= 1.2 * max(sizes[:10])
    assert found["quantum_worker_label_sets_expired_total"] > 1500
    registry.close()


def test_whoever_holds_a_removed_child_harms_no_other(tmp_path: Path) -> None:
    """Its counts go nowhere once its place was given up."""
    registry = WorkerRegistry(tmp_path)
    counter = Counter("c", "C.", ["l"], registry=registry)
    stale = counter.labels("stale")
    counter.remove("stale")
    for turn in range(300):
        counter.labels(str(turn)).inc()
        counter.remove(str(turn))
    counter.labels("fresh").inc()
    stale.inc(1000)
    assert page(registry)["c_total,l=fresh"] == 1
    registry.close()


def test_the_newest_declaration_of_a_name_is_followed(tmp_path: Path) -> None:
    """Two versions of an app side by side: the exposition stays valid, what is left out is counted."""
    times = Times()
    old, new = WorkerRegistry(tmp_path, now=times), None
    Histogram("h", "H.", registry=old, buckets=(1, 2)).observe(1)
    times.now += 1
    new = WorkerRegistry(tmp_path, now=times)
    Histogram("h", "H.", registry=new, buckets=(1, 2, 3)).observe(1)
    found = page(old)
    assert (found["h_bucket,le=3.0"], found["h_count"]) == (1, 1)
    assert found["quantum_worker_definitions_ignored"] == 1
    old.close()
    new.close()


def test_what_no_other_process_can_read_is_refused(tmp_path: Path) -> None:
    """Collectors with numbers elsewhere, and gauges that ask a function."""
    registry = WorkerRegistry(tmp_path)
    with pytest.raises(ValueError, match=r"Info cannot be shared by processes \(allowed: Counter"):
        Info("i", "I.", registry=registry)
    with pytest.raises(ValueError, match="use set"):
        Gauge("g", "G.", registry=registry).set_function(lambda: 1)
    registry.close()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """With the reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        WorkerRegistry(tmp_path / "file" / "x")


def test_damaged_files_cost_what_they_held_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A torn last line is a killed process; garbage and unknown versions are said once and left out."""
    registry = WorkerRegistry(tmp_path)
    Counter("c", "C.", registry=registry).inc(3)
    other = WorkerRegistry(tmp_path)
    Counter("c", "C.", registry=other).inc(4)
    (torn,) = (path for path in tmp_path.glob("*.keys") if path.stem == other._file.name)
    other.close()
    with torn.open("ab") as file:
        file.write(b'{"row": ["x')
    (tmp_path / "1-aa.keys").write_text("garbage\n")
    (tmp_path / "1-aa.values").write_bytes(b"\0" * 16)
    (tmp_path / "2-bb.keys").write_text('{"version": 2}\n')
    (tmp_path / "totals").write_text("{")
    for _ in range(2):
        assert page(registry)["c_total"] == 7
    assert sorted(record.message.split()[0].rsplit("/")[-1] for record in caplog.records) == [
        "1-aa.keys",
        "2-bb.keys",
        "totals.damaged",
    ]
    assert not (tmp_path / "1-aa.keys").exists()
    assert (tmp_path / "2-bb.keys").exists()
    registry.close()


def test_killed_between_totals_and_removal_counts_once(tmp_path: Path) -> None:
    """The totals name what is in them: the next reader removes it and adds nothing."""
    other = WorkerRegistry(tmp_path)
    Counter("c", "C.", registry=other).inc(4)
    name = other._file.name
    other.close()
    kept = {path.name: path.read_bytes() for path in tmp_path.glob(f"{name}*")}
    registry = WorkerRegistry(tmp_path)  # adds it up
    document = json.loads((tmp_path / "totals").read_text())
    assert document["folded"] == [name]
    for file, content in kept.items():
        (tmp_path / file).write_bytes(content)
    assert page(registry)["c_total"] == 4
    assert page(registry)["c_total"] == 4
    assert json.loads((tmp_path / "totals").read_text())["folded"] in ([], [name])
    assert not list(tmp_path.glob(f"{name}*"))
    registry.close()


def test_a_full_disk_keeps_the_app_running(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The numbers stay in the process, the log says so once; what was in the files before is not lost."""
    registry = WorkerRegistry(tmp_path)
    counter = Counter("c", "C.", ["l"], registry=registry)
    counter.labels("before").inc(2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
    try:
        for number in range(1000):
            counter.labels(str(number)).inc()
        counter.labels("before").inc()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert counter.labels("999")._value.get() == 1
    assert page(registry)["c_total,l=before"] == 2
    assert [record.message[:45] for record in caplog.records] == [
        "measurements are kept in this process alone: "
    ]
    registry.close()


async def test_the_exposition_page_shows_all_processes(tmp_path: Path) -> None:
    """Our own rendering of such a registry is the library's; name[] works on both."""
    registry, other = WorkerRegistry(tmp_path), WorkerRegistry(tmp_path)
    for one in (registry, other):
        Counter("c", "C.", registry=one).inc()
    body, _ = await ExpositionPage(registry).render("", "", Wanted(names=("c_total",)))
    assert body == b"# HELP c_total C.\n# TYPE c_total counter\nc_total 2.0\n"
    assert generate_latest(registry.restricted_registry(["c_total"])) == body
    registry.close()
    other.close()


def test_a_finalizer_may_count_while_its_thread_counts(tmp_path: Path) -> None:
    """The garbage collector runs it in the middle of anything: no deadlock."""
    registry = WorkerRegistry(tmp_path)
    counter = Counter("c", "C.", ["l"], registry=registry)
    with registry._file.lock:
        counter.labels("x").inc()
    assert page(registry)["c_total,l=x"] == 1
    registry.close()


def test_label_sets_that_a_monitor_expires(tmp_path: Path) -> None:
    """expire_idle works in a shared registry."""

    async def call() -> None:
        monitor = Monitor(registry=registry)
        async with monitor.api_call("/x"):
            pass
        assert monitor.expire_idle(-1) == 1

    registry = WorkerRegistry(tmp_path, keep_s=-1)
    asyncio.run(call())
    assert not [key for key in page(registry) if "endpoint" in key]
    registry.close()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("inc"), st.integers(0, 2), st.sampled_from("abc")),
        st.tuples(st.just("remove"), st.integers(0, 2), st.sampled_from("abc")),
        st.tuples(st.just("end"), st.integers(0, 2), st.just("")),
        st.tuples(st.just("anew"), st.integers(0, 2), st.just("")),
    ),
    max_size=40,
)


@settings(max_examples=40)
@given(STEPS)
def test_any_order_of_counting_removing_and_ending(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, str]]
) -> None:
    """The sum is what was counted in all, whatever the processes did in between."""
    folder = tmp_path_factory.mktemp("workers")
    reader = WorkerRegistry(folder)

    def begin() -> tuple[WorkerRegistry, Counter]:
        registry = WorkerRegistry(folder)
        return registry, Counter("c", "C.", ["l"], registry=registry)

    workers = [begin() for _ in range(3)]
    wanted: dict[str, float] = {}
    for step, at, label in steps:
        registry, counter = workers[at]
        if step == "inc":
            counter.labels(label).inc()
            wanted[label] = wanted.get(label, 0) + 1
        elif step == "remove":
            counter.remove(label)
        elif step == "anew":
            with registry._locked(), registry._file.lock:
                registry._file.begin_anew(keep_gauges=True)
        else:
            registry.close()
            workers[at] = begin()
        found = page(reader)
        assert {label: found.get(f"c_total,l={label}") for label in wanted} == wanted
    for registry, _ in workers:
        registry.close()
    reader.close()
