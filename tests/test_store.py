"""A run's .watchdog/ folder: what survives a crash, what is said about what did not, and who may write."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from fluxgym_watchdog import samples as sample_lines
from fluxgym_watchdog.records import (
    Attempt,
    Checkpoint,
    CheckpointKind,
    Event,
    FindingKind,
    Gpu,
    Host,
    Phase,
    ProcessId,
    RunRecord,
    RunState,
    Sample,
    Status,
)
from fluxgym_watchdog.store import Held, Store, plain

NOW = 1_700_000_000.0
RECORD = RunRecord(
    "猫",
    state=RunState.STOPPING,
    auto_resume=False,
    script="train.sh",
    attempts=(
        Attempt(1, NOW, last_step=85, ended_at=NOW + 100, exit_code=-9, outcome="host_memory"),
        Attempt(2, NOW + 110, 4000, 80, 95, False, "x-000002-state@1.000", ProcessId(42, NOW + 110.25), "boot"),
    ),
    restarts=1,
    next_start_at=NOW + 300,
    steps_per_epoch=40,
    quarantined=("x-000003-state@2.000",),
    learned={"training": 2.5, "saving": 7.0},
    stopping_for=RunState.WAITING,
    retry=True,
)
STATUS = Status(
    at=NOW,
    state=RunState.TRAINING,
    finding=FindingKind.HEALTHY,
    text="",
    phase=Phase.TRAINING,
    attempt=2,
    step=95,
    total_steps=240,
    epoch=3,
    epochs=6,
    loss=0.25,
    seconds_per_step=1.5,
    heartbeat_at=NOW - 1,
    count=0,
    count_total=None,
    processes=4,
    gpu_source="nvml",
    gpus=(Gpu(0, "GPU-1", "card", 97.0, 10, 20, 60.0, 300.0, 450.0, {4242: 9}),),
    checkpoints=(Checkpoint("x-000002-state", CheckpointKind.STATE, NOW, 5, True, epoch=2, attempt_step=80),),
    host=Host(1, 2, 3, 4, 5, 6),
)
SAMPLE = Sample(NOW, 0, 97.5, 10, 20, 60.0, 300.0, 450.0, 95, 0.25)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def written(store: Store, name: str, text: str | bytes) -> Path:
    store.folder.mkdir(exist_ok=True)
    path = store.folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def names(store: Store) -> set[str]:
    return {p.name for p in store.folder.iterdir()}


def wait_until(condition: Callable[[], Any], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


# run.json and status.json


def test_what_was_written_is_read(store: Store) -> None:
    store.write_record(RECORD)
    store.write_status(STATUS)
    assert Store(store.run_folder).read_record() == (RECORD, "")
    assert Store(store.run_folder).read_status() == STATUS
    assert names(store) == {"run.json", "status.json", "checkpoints.json"}


def test_reading_makes_no_folder(store: Store) -> None:
    assert store.read_record() == (None, "")
    assert store.read_status() is None
    assert store.read_events() == []
    assert store.read_samples() == []
    assert store.pending_requests() == store.take_requests() == []
    assert not store.is_held()
    assert list(store.run_folder.iterdir()) == []


def test_a_new_record_replaces_the_old_one_as_a_whole(store: Store) -> None:
    """Whoever has the old file open goes on reading the old record: nothing is written into it."""
    store.write_record(RECORD)
    with (store.folder / "run.json").open() as old:
        store.write_record(replace(RECORD, restarts=2))
        assert json.load(old)["restarts"] == 1
    record, _ = store.read_record()
    assert record is not None
    assert record.restarts == 2


def test_a_reader_never_sees_half_a_record(store: Store) -> None:
    long = replace(RECORD, quarantined=tuple(f"x-{n:06d}-state@1.000" for n in range(2000)))
    store.write_record(RECORD)
    over = threading.Event()

    def write() -> None:
        for number in range(100):
            store.write_record(long if number % 2 else RECORD)
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not over.is_set():
            record, problem = Store(store.run_folder).read_record()
            assert (problem, record in (RECORD, long)) == ("", True)
    finally:
        writer.join()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\0\0",
        b'{"name": "x", "state": "train',
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe{}",
        b"{}",
        b"[" * 100_000,
        b'{"name": "x", "state": "no such state"}',
        b'{"name": 5}',
        b'{"name": "x", "schema": "new"}',
        b'{"name": "x", "restarts": "3"}',
        b'{"name": "x", "restarts": null}',
        b'{"name": "x", "auto_resume": "yes"}',
        b'{"name": "x", "attempts": 5}',
        b'{"name": "x", "attempts": [5]}',
        b'{"name": "x", "attempts": [{"number": 1}]}',
        b'{"name": "x", "attempts": [{"number": 1, "started_at": 1, "process": {"pid": "1", "create_time": 0}}]}',
        b'{"name": "x", "learned": {"training": "long"}}',
        b'{"name": "x", "learned": []}',
        b'{"name": "x", "quarantined": "abc"}',
    ],
)
def test_an_unreadable_record_is_reported_and_set_aside_by_who_holds_the_lock(store: Store, content: bytes) -> None:
    path = written(store, "run.json", content)
    with store.locked():
        for _ in range(2):
            record, problem = Store(store.run_folder).read_record()
            assert record is None
            assert problem.startswith(f"{path}: is not a run record (")
            assert problem.endswith(")"), "another only reports it"
            assert path.read_bytes() == content
        record, problem = store.read_record()
    assert record is None
    assert problem.startswith(f"{path}: is not a run record (")
    (aside,) = names(store) - {"lock"}
    assert aside.startswith("run.json.unreadable-")
    assert problem.endswith(f"set aside as {aside}")
    assert (store.folder / aside).read_bytes() == content
    assert store.read_record() == (None, "")
    store.write_record(RECORD)
    assert store.read_record() == (RECORD, "")
    assert aside in names(store)


def test_keys_of_a_later_version_are_left_out_and_missing_ones_have_their_defaults(store: Store) -> None:
    written(store, "run.json", '{"name": "x", "mood": "good", "attempts": [{"number": 1, "started_at": 5, "hue": 3}]}')
    assert store.read_record() == (RunRecord("x", attempts=(Attempt(1, 5.0),)), "")


def test_a_record_of_a_newer_version_is_left_alone_until_another_is_written(store: Store) -> None:
    content = '{"name": "x", "schema": 99, "state": "levitating"}'
    path = written(store, "run.json", content)
    record, problem = store.read_record()
    assert record is None
    assert problem == f"{path}: written by a newer version (schema 99); update FluxGym Watchdog"
    assert path.read_text() == content
    store.write_record(RECORD)
    assert store.read_record() == (RECORD, "")
    (aside,) = names(store) - {"run.json"}
    assert aside.startswith("run.json.newer-")
    assert (store.folder / aside).read_text() == content


def test_a_record_that_cannot_be_opened_is_left_where_it_is(store: Store) -> None:
    (store.folder / "run.json").mkdir(parents=True)
    record, problem = store.read_record()
    assert record is None
    assert "run.json: cannot be read" in problem
    assert names(store) == {"run.json"}


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"at": 1}', b"\xff", b"[" * 100_000])
def test_an_unreadable_status_is_none(store: Store, content: bytes) -> None:
    written(store, "status.json", content)
    assert store.read_status() is None


def test_checkpoints_are_written_again_only_when_they_have_changed(store: Store) -> None:
    store.write_status(STATUS)
    path = store.folder / "checkpoints.json"
    first = path.stat().st_ino
    store.write_status(replace(STATUS, step=96))
    assert path.stat().st_ino == first
    more = (*STATUS.checkpoints, replace(STATUS.checkpoints[0], name="x-000003-state", step=120))
    reader = Store(store.run_folder)
    for checkpoints in (STATUS.checkpoints, more, more[1:], ()):
        store.write_status(replace(STATUS, checkpoints=checkpoints))
        assert reader.read_status() == replace(STATUS, checkpoints=checkpoints)
    path.unlink()
    store.write_status(STATUS)
    assert reader.read_status() == STATUS


@pytest.mark.parametrize("content", [b"", b"[]", b"5", b'{"x": 1}', b"\xff", b"[" * 100_000])
def test_unreadable_checkpoints_are_none(store: Store, content: bytes) -> None:
    store.write_status(STATUS)
    written(store, "checkpoints.json", content)
    assert store.read_status() == replace(STATUS, checkpoints=())


def test_a_shorter_status_leaves_nothing_of_a_longer_one(store: Store) -> None:
    store.write_status(replace(STATUS, text="no step for 4 min 10 s" * 400))
    store.write_status(STATUS)
    assert store.read_status() == STATUS


def test_a_status_that_is_half_written_is_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written(store, "status.json", json.dumps(plain(STATUS)).encode()[:100])
    monkeypatch.setattr(time, "sleep", lambda seconds: store.write_status(STATUS) if seconds else None)
    assert store.read_status() == STATUS


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders on this system")
def test_a_status_that_is_no_file_is_not_waited_for(store: Store) -> None:
    store.folder.mkdir()
    os.mkfifo(store.folder / "status.json")
    assert store.read_status() is None
    with pytest.raises(OSError, match=r"status\.json"):
        store.write_status(STATUS)


def test_what_json_does_not_know_becomes_unknown(store: Store) -> None:
    store.write_status(replace(STATUS, loss=math.nan, seconds_per_step=math.inf))
    json.loads((store.folder / "status.json").read_text(), parse_constant=pytest.fail)
    assert store.read_status() == replace(STATUS, loss=None, seconds_per_step=None)


def test_text_that_is_no_unicode_can_be_written(store: Store) -> None:
    store.write_record(replace(RECORD, reason="/data/\udcff"))
    store.append_event(Event(NOW, "crashed", "/data/\udcff"))
    assert store.read_events()[0].text == "/data/?"


# a writer that is killed

WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from fluxgym_watchdog.records import Event, RunRecord
from fluxgym_watchdog.store import Store
store, number = Store(Path(sys.argv[1])), 0
while True:
    number += 1
    store.write_record(RunRecord("x", restarts=number, quarantined=("y" * 50,) * (number % 7 * 200)))
    store.append_event(Event(number, "tick", "z" * (number % 5 * 300)))
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_writer_killed_at_any_moment_leaves_a_readable_record(store: Store) -> None:
    path, events = store.folder / "run.json", store.folder / "events.jsonl"
    for number in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(store.run_folder)])
        try:
            before = path.stat().st_ino if path.exists() else None
            wait_until(lambda before=before: path.exists() and path.stat().st_ino != before and events.exists())
            time.sleep(number * 0.0007)  # any moment of a write
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        record, problem = store.read_record()
        assert problem == ""
        assert record is not None
        assert len(record.quarantined) == record.restarts % 7 * 200
    assert names(store) <= {"run.json", "events.jsonl", ".run.json.part"}
    count = len(store.read_events())
    assert count > 0
    store.append_event(Event(NOW, "after", "all"))
    assert store.read_events()[-1] == Event(NOW, "after", "all")
    store.write_record(RECORD)
    assert names(store) == {"run.json", "events.jsonl"}


# events.jsonl


def test_events_are_read_oldest_first(store: Store) -> None:
    events = [
        Event(NOW + n, "tick", f"n {n}\u2028\x85\n", "ok", n, {"gpu": [n, None], "a": {"b": 0.5}}) for n in range(9)
    ]
    for event in events:
        store.append_event(event)
    assert store.read_events() == events
    assert store.read_events(limit=3) == events[-3:]


def test_a_line_that_a_crash_cut_off_takes_no_other_with_it(store: Store) -> None:
    first, second, third = (Event(NOW + n, "tick", str(n)) for n in range(3))
    for event in (first, second):
        store.append_event(event)
    path = store.folder / "events.jsonl"
    for cut in range(1, len(path.read_bytes().splitlines()[1])):
        content = path.read_bytes()
        path.write_bytes(content[:-cut])
        assert first in store.read_events()
        store.append_event(third)
        assert [e for e in store.read_events() if e != second] == [first, third]
        path.write_bytes(content)


def test_lines_that_are_no_events_are_left_out(store: Store) -> None:
    store.append_event(Event(NOW, "tick", "one"))
    with (store.folder / "events.jsonl").open("ab") as file:
        file.write(b'\n[]\n5\n{"at": 1}\n{"at": "now", "kind": "a", "text": "b"}\n\xff\xfe\n\0\0\0\n')
    store.append_event(Event(NOW, "tick", "two"))
    assert [e.text for e in store.read_events()] == ["one", "two"]


def test_only_the_end_of_a_long_timeline_is_read(store: Store) -> None:
    for number in range(20):
        store.append_event(Event(NOW, "tick", str(number), evidence={"lines": ["x" * 2000]}))
    assert [e.text for e in store.read_events(limit=4)] == ["16", "17", "18", "19"]


def test_evidence_of_any_kind_can_be_kept(store: Store) -> None:
    odd = {"path": Path("a"), "set": {1}, "bytes": b"x", "nan": math.nan, "state": RunState.IDLE, "tuple": (1, 2)}
    store.append_event(Event(NOW, "tick", "odd", evidence=odd))
    kept = store.read_events()[0].evidence
    assert (kept["path"], kept["nan"], kept["state"], kept["tuple"]) == ("a", None, "idle", [1, 2])


# samples.csv


def test_samples_are_read_as_they_were(store: Store) -> None:
    blind = Sample(NOW + 2, -1, None, None, None, None, None, None, 96, None)
    store.append_samples([SAMPLE])
    store.append_samples([blind])
    assert store.read_samples() == [SAMPLE, blind]
    assert store.read_samples(since=NOW + 1) == [blind]
    assert (store.folder / "samples.csv").read_text().splitlines()[0] == ",".join(f.name for f in fields(Sample))


def test_the_file_of_an_older_version_keeps_its_columns(store: Store) -> None:
    path = written(store, "samples.csv", "at,gpu,step,loss\n1.000,0,5,0.250\n")
    store.append_samples([replace(SAMPLE, memory_run_bytes=9)])
    assert path.read_text().splitlines()[2] == f"{NOW:.3f},0,95,0.250"
    assert [s.step for s in store.read_samples()] == [5, 95]


def test_numbers_that_are_none_are_unknown(store: Store) -> None:
    store.append_samples([replace(SAMPLE, loss=math.nan, power_w=math.inf)])
    assert store.read_samples() == [replace(SAMPLE, loss=None, power_w=None)]


def test_a_sample_that_a_crash_cut_off_is_left_out_and_takes_no_other_with_it(store: Store) -> None:
    """At every byte: neither is half a number taken for a whole one, nor is the next line glued to it."""
    later = replace(SAMPLE, at=NOW + 2)
    last = replace(SAMPLE, at=NOW + 4, step=96)
    store.append_samples([SAMPLE, later])
    path = store.folder / "samples.csv"
    whole = path.read_bytes()
    for cut in range(1, len(whole) + 1):
        path.write_bytes(whole[:-cut])
        left = [s for s in (SAMPLE, later) if s in store.read_samples()]
        assert store.read_samples() == left
        store.append_samples([last])
        assert store.read_samples() == [*left, last]


@pytest.mark.parametrize(
    "junk", [b"\0" * 300, b"\xff\xfe\n", b"1,2,3\n", b"a,b,c,d,e,f,g,h,i,j\n", b"\n\n", b"1,inf,,,,,,,1,\n"]
)
def test_lines_that_are_no_samples_are_left_out(store: Store, junk: bytes) -> None:
    store.append_samples([SAMPLE])
    with (store.folder / "samples.csv").open("ab") as file:
        file.write(junk)
    store.append_samples([SAMPLE])
    assert store.read_samples() == [SAMPLE, SAMPLE]


@pytest.mark.parametrize("gpus", [1, 2, 3])
def test_thinning_keeps_whole_ticks_and_the_newest_half(
    store: Store, monkeypatch: pytest.MonkeyPatch, gpus: int
) -> None:
    monkeypatch.setattr(sample_lines, "LIMIT_BYTES", 20_000)
    ticks, size = 0, 0
    path = store.folder / "samples.csv"
    while not path.exists() or path.stat().st_size > size:  # until it shrinks
        size = path.stat().st_size if path.exists() else 0
        store.append_samples([replace(SAMPLE, at=NOW + 2 * ticks, gpu=gpu) for gpu in range(gpus)])
        ticks += 1
    found = store.read_samples()
    by_tick: dict[float, list[int]] = {}
    for sample in found:
        by_tick.setdefault(sample.at, []).append(sample.gpu)
    assert all(seen == list(range(gpus)) for seen in by_tick.values())
    times = list(by_tick)
    assert times == sorted(times)
    newest = [NOW + 2 * n for n in range(ticks // 2 + 1, ticks)]
    assert times[-len(newest) :] == newest
    old = len(times) - len(newest)
    assert ticks * 0.2 < old < ticks * 0.3
    assert path.stat().st_size < 20_000


# requests


def test_requests_are_taken_once_in_the_order_they_came(store: Store) -> None:
    for number in range(5):
        store.request("resume", checkpoint=f"x-{number}")
    store.request("switch", auto_resume=False)
    expected = [
        *({"kind": "resume", "checkpoint": f"x-{n}"} for n in range(5)),
        {"kind": "switch", "auto_resume": False},
    ]
    other = Store(store.run_folder)
    assert other.pending_requests() == other.pending_requests() == expected
    assert other.take_requests() == expected
    assert store.take_requests() == store.pending_requests() == []
    assert list((store.folder / "requests").iterdir()) == []


def test_garbage_among_the_requests_is_not_heeded(store: Store) -> None:
    store.request("stop")
    folder = store.folder / "requests"
    for name, content in {
        "0.json": b"",
        "1.json": b"[]",
        "2.json": b'{"kind": 5}',
        "3.json": b"\xff",
        "4": b"{}",
    }.items():
        (folder / name).write_bytes(content)
    (folder / "5.json").mkdir()
    (folder / ".6.json.part").write_text('{"kind": "resume"}')
    assert store.take_requests() == [{"kind": "stop"}]
    assert store.take_requests() == []


# the lock

HOLDER = """
import sys
from pathlib import Path
from fluxgym_watchdog.store import Store
store = Store(Path(sys.argv[1]))
store.lock()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(store: Store) -> Any:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.run_folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"held\n"
        yield process
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()


def test_a_second_holder_in_the_same_process(store: Store) -> None:
    other = Store(store.run_folder)
    with store.locked():
        assert store.is_held()
        assert other.is_held()
        for second in (store, other):
            with pytest.raises(Held, match="already supervised"):
                second.lock()
        assert store.is_held()
    assert not store.is_held()
    assert not other.is_held()
    with other.locked():
        assert store.is_held()


def test_a_lock_is_given_back_after_an_error(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.locked():
        _ = 1 / 0
    assert not store.is_held()
    store.unlock()
    store.unlock()


def test_a_holder_in_another_process_until_it_is_killed(store: Store, holder: subprocess.Popen[bytes]) -> None:
    assert store.is_held()
    with pytest.raises(Held, match="already supervised"):
        store.lock()
    holder.kill()
    holder.wait()
    assert not store.is_held()
    with store.locked():
        assert Store(store.run_folder).is_held()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no shared locks")
def test_those_who_ask_do_not_take_each_other_for_a_holder(store: Store) -> None:
    """The tab and the command line ask all the time; a run that nobody holds must not look held."""
    with store.locked():
        pass
    over = threading.Event()

    def ask() -> None:
        other = Store(store.run_folder)
        while not over.is_set():
            other.is_held()

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    try:
        assert not any(store.is_held() for _ in range(2000))
    finally:
        over.set()
        for thread in asking:
            thread.join()


def test_a_lock_can_be_taken_while_another_asks(store: Store) -> None:
    with store.locked():
        pass
    over = threading.Event()

    def ask() -> None:
        other = Store(store.run_folder)
        while not over.is_set():
            other.is_held()
            over.wait(0.001)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(100):
            with store.locked():
                pass
    finally:
        over.set()
        asking.join()


# folders that cannot be written

WRITES: dict[str, Callable[[Store], Any]] = {
    "run.json": lambda s: s.write_record(RECORD),
    "status.json": lambda s: s.write_status(STATUS),
    "events.jsonl": lambda s: s.append_event(Event(NOW, "tick", "")),
    "samples.csv": lambda s: s.append_samples([SAMPLE]),
    "stop": lambda s: s.request("stop"),
    "lock": lambda s: s.lock(),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_run_that_was_deleted_does_not_come_back(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=name):
        WRITES[name](Store(tmp_path / "gone"))
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("name", WRITES)
def test_a_folder_that_is_none(store: Store, name: str) -> None:
    store.folder.write_text("")
    with pytest.raises(OSError, match=name):
        WRITES[name](store)


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(store: Store, name: str) -> None:
    store.folder.mkdir()
    store.folder.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=name):
            WRITES[name](store)
    finally:
        store.folder.chmod(0o700)


@pytest.mark.parametrize("name", ["events.jsonl", "samples.csv"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is hard to come by")
def test_a_full_disk(store: Store, name: str) -> None:
    store.folder.mkdir()
    (store.folder / name).symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"No space left on device.*{name}"):
        WRITES[name](store)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is hard to come by")
def test_a_full_disk_leaves_the_old_record(store: Store) -> None:
    store.write_record(RECORD)
    (store.folder / ".run.json.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device.*run\.json"):
        store.write_record(replace(RECORD, restarts=3))
    assert store.read_record() == (RECORD, "")
    assert names(store) == {"run.json"}


def test_a_night_of_saves_pushes_nothing_off_the_timeline(store: Store) -> None:
    store.append_event(Event(1.0, "stalled", "Training stuck.", "bad", 1))
    for number in range(250):
        store.append_event(Event(2.0 + number, "checkpoint", f"Saved {number}.", "ok", 1))
    events = store.read_events()
    assert events[0].text == "Training stuck."
    assert len(events) == 251


def test_samples_go_on_in_a_new_file_where_the_old_one_is_none(store: Store) -> None:
    store.append_samples([SAMPLE])
    path = store.folder / "samples.csv"
    path.write_bytes(bytes(500) + b"\n")
    assert "set aside as samples.csv.unreadable-" in store.append_samples([SAMPLE])
    assert store.read_samples() == [SAMPLE]
    assert next(store.folder.glob("samples.csv.unreadable-*")).read_bytes() == bytes(500) + b"\n"


@pytest.mark.skipif(os.name != "posix", reason="making a link needs rights on Windows")
def test_evidence_deletes_nothing_but_evidence(store: Store) -> None:
    """A run's folder may come from an archive, with a link in it."""
    for number in range(30):
        (store.run_folder.parent / f"run-{number:02d}").mkdir()
    store.folder.mkdir(exist_ok=True)
    (store.folder / "evidence").symlink_to(store.run_folder.parent)
    store.write_evidence("20260101-000000", {"a.txt": "x"})
    assert len(list(store.run_folder.parent.glob("run-*"))) == 30
    (store.folder / "evidence").unlink()
    (store.folder / "evidence" / "mine").mkdir(parents=True)
    for number in range(30):
        store.write_evidence(f"20260101-0000{number:02d}", {"a.txt": "x"})
    kept = sorted(path.name for path in (store.folder / "evidence").iterdir())
    assert kept == [*(f"20260101-0000{number:02d}" for number in range(10, 30)), "mine"]


def test_a_number_of_hundreds_of_digits_is_no_status(store: Store) -> None:
    store.write_record(RECORD)
    path = store.folder / "run.json"
    path.write_text(path.read_text().replace('"restarts": ', f'"restarts": {"9" * 400}'), encoding="utf-8")
    record, problem = store.read_record()
    assert record is None
    assert "a number is too large" in problem
