from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.client.journal import FileJournal
from exporter.errors import StorageError
from exporter.simulate.providers import ProviderSimulator


def test_sends_survive_without_close(tmp_path: Path) -> None:
    """What was recorded is there for the next process, even if this one never closed the file."""
    first = FileJournal(tmp_path)
    first.load("a", 0)
    for at_ms in (1000, 3000, 2000):
        first.record("a", at_ms)
    first.release("a", 3000)
    second = FileJournal(tmp_path)
    assert second.load("a", 0) == [1000, 2000]
    assert second.load("a", 1000) == [2000]
    first.close()
    second.close()


def test_a_torn_last_line_is_no_send(tmp_path: Path) -> None:
    """The line is written before the call goes out: half a line means that it did not."""
    (tmp_path / "a.sends").write_bytes(b"1000\ngarbage\n2000\n30")
    journal = FileJournal(tmp_path)
    assert journal.load("a", 0) == [1000, 2000]
    journal.record("a", 4000)
    journal.close()
    assert (tmp_path / "a.sends").read_bytes() == b"1000\n2000\n4000\n"


def test_a_grown_file_is_rewritten(tmp_path: Path) -> None:
    """Old sends do not pile up."""
    (tmp_path / "a.sends").write_bytes(b"".join(b"%d\n" % at for at in range(1, 5001)))
    journal = FileJournal(tmp_path)
    assert journal.load("a", 4990) == list(range(4991, 5001))
    journal.close()
    assert len((tmp_path / "a.sends").read_bytes().splitlines()) == 10


def test_a_provider_name_is_no_path(tmp_path: Path) -> None:
    """Names cannot leave the folder."""
    journal = FileJournal(tmp_path / "quota")
    journal.load("../../etc", 0)
    journal.record("../../etc", 1)
    journal.close()
    assert [path.name for path in (tmp_path / "quota").iterdir()] == ["%2e%2e%2f%2e%2e%2fetc.sends"]


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """A file in the way is a StorageError that names the place."""
    (tmp_path / "quota").write_text("x")
    with pytest.raises(StorageError, match="quota journal"):
        FileJournal(tmp_path / "quota").load("a", 0)


_CHILD = """
import asyncio, sys
from pathlib import Path
from exporter.client import ApiClient
from exporter.client.journal import FileJournal
from exporter.config.positions import Reader, parse_yaml
from exporter.config.providers import read_providers
from exporter.errors import ApiError
reader = Reader("test")
configs = read_providers(reader, parse_yaml(
    f"kraken: {{base_url: '{sys.argv[1]}/kraken', limits: {{minute: 5}}}}"))
assert not reader.problems, reader.problems
async def main():
    async with ApiClient([configs["kraken"]], journal=FileJournal(Path(sys.argv[2]))) as client:
        try:
            while True:
                await client.get_json("kraken", "/Time", ttl=0, deadline_s=3)
                print("sent", flush=True)
        except ApiError as error:
            print(error.kind.value, flush=True)
            await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_a_killed_process_leaves_its_quota_used(tmp_path: Path) -> None:
    """kill -9 after three of five calls a minute: the next process makes two, then waits. Real processes."""
    simulator = ProviderSimulator(limits={"kraken": {"minute": 5}})
    base_url = await simulator.start()
    try:
        arguments = [sys.executable, "-c", _CHILD, base_url, str(tmp_path)]
        counts = []
        for kill_after in (3, 99):
            child = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE)
            assert child.stdout is not None
            sent = 0
            async for line in child.stdout:
                if line.strip() != b"sent":
                    assert line.strip() == b"deadline"
                    break
                sent += 1
                if sent == kill_after:
                    break
            os.kill(child.pid, signal.SIGKILL)
            await child.wait()
            counts.append(sent)
        assert counts[0] == 3
        assert 1 <= counts[1] <= 2  # the killed process may have begun its fourth
        assert simulator.stats()["kraken"]["refused"] == 0
    finally:
        await simulator.stop()
