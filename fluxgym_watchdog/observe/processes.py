"""A training's processes: found by their parents or by their environment, told apart by role, held by identity."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from fluxgym_watchdog.observe import procfs
from fluxgym_watchdog.records import Process, ProcessId, Role

TRAINER_SUFFIX = "_train_network.py"
RUN_VARIABLE = "FLUXGYM_WATCHDOG_RUN"
"""Carries the run's folder in the environment of all its processes, so that strays can be found."""
OUR_COMMANDS = frozenset({"fluxgym_watchdog", "fluxgym-watchdog"})
RESCAN_S = 10.0
"""How often the whole machine is searched for new children; in between only the known processes are asked."""
CREATE_TIME_TOLERANCE_S = 2.0
"""A stepped clock moves the create times that the system reports, by far less than a pid takes to come round again."""
_identities: dict[int, tuple[ProcessId, int]] = {}
"""By pid: the identity that we gave a process, with its start in ticks since the boot, which no stepped clock moves."""


@dataclass(slots=True)
class _Known:
    """A process that is followed; `started_ticks` is None where there is no /proc to compare it with."""

    process: psutil.Process
    id: ProcessId
    started_ticks: int | None
    role: Role = Role.OTHER


class ProcessReader:
    """Reads one training's tree again and again. Zombies and processes that end between two calls are left out."""

    def __init__(self, roots: Iterable[ProcessId] = ()) -> None:
        self._known: dict[int, _Known] = {}
        self._scanned_at = float("-inf")
        self._trainers: set[tuple[str, ...]] = set()
        self.add(roots)

    def add(self, roots: Iterable[ProcessId]) -> None:
        """Takes up processes that are alive and are really those; their descendants come with the next scan."""
        for root in roots:
            if root.pid not in self._known:
                self._take_up(root)
        self._scanned_at = float("-inf")

    def read(self, now: float) -> tuple[Process, ...]:
        """The living processes at monotonic time `now`, in the order of their pids."""
        seen = self._sample()
        has_trainer = any(p.role is Role.TRAINER for p in seen)
        if now - self._scanned_at >= (RESCAN_S if has_trainer else 0.0):
            self._scan()
            self._scanned_at = now
            seen = self._sample()
        return tuple(sorted(seen, key=lambda p: p.id.pid))

    def _take_up(self, identity: ProcessId) -> None:
        stat, process = procfs.read_stat(identity.pid), find(identity)
        if process is not None:
            self._known[identity.pid] = _Known(process, identity, stat.started_ticks if stat else None)

    def _sample(self) -> list[Process]:
        samples = {pid: _sample(known) for pid, known in self._known.items()}
        self._known = {pid: known for pid, known in self._known.items() if samples[pid] is not None}
        return [sample for sample in samples.values() if sample is not None]

    def _scan(self) -> None:
        if not self._known:
            return
        reached, queue = set(self._known), list(self._known)
        children_of = _children_lookup()
        while queue:
            for pid in children_of(queue.pop()):
                if pid not in reached:
                    reached.add(pid)
                    queue.append(pid)
        for pid in reached - set(self._known):
            identity = identify(pid)
            if identity is not None:
                self._take_up(identity)
        self._assign_roles()

    def _assign_roles(self) -> None:
        # Roles are given once: when a trainer dies its workers get another parent, and would look like trainers. One
        # that is seen only then has the command line of a trainer that was seen before, and no parent in the tree.
        for known in self._known.values():
            if known.role is Role.OTHER:
                parent, line = self._known.get(_parent_pid(known.process)), _command_line(known.process)
                known.role = role_of(line, _command_line(parent.process) if parent else [])
                if known.role is Role.TRAINER:
                    known.role = Role.WORKER if parent is None and tuple(line) in self._trainers else Role.TRAINER
                    self._trainers.add(tuple(line))


def role_of(command_line: list[str], parents_command_line: list[str]) -> Role:
    """A process's role from its own command line and its parent's (empty where the parent is not of the tree)."""
    head = [Path(word).name.lower() for word in command_line[:4]]
    if "launch" in head and any("accelerate" in word for word in head):
        return Role.LAUNCHER
    if is_trainer(command_line):
        return Role.WORKER if command_line == parents_command_line else Role.TRAINER
    if head and head[0].removesuffix(".exe") in ("sh", "bash", "dash", "zsh", "cmd"):
        return Role.WRAPPER
    return Role.OTHER


def is_trainer(command_line: list[str]) -> bool:
    """Whether this is `python …_train_network.py …` itself, not a launcher or shell that names it further on."""
    if not command_line or "python" not in Path(command_line[0]).name.lower():
        return False
    words = iter(command_line[1:])
    for word in words:
        if word in ("-X", "-W"):
            next(words, "")
        elif not word.startswith("-"):
            return word.endswith(TRAINER_SUFFIX)
    return False


def find_trainers(
    output_dir: Path, output_name: str | None, cwd: Path, run_mark: str = "", *, or_launchers: bool = False
) -> list[ProcessId]:
    """The trainers on this machine that write into `output_dir` (and under this name, where one is given).

    They are told by their `--output_dir`, taken relative to their own working directory, never by the program's name.
    Where `run_mark` is given, those whose environment says that they belong to another run are left out. While a
    launcher is still importing there is no trainer yet: with `or_launchers` the launcher is then returned.
    """
    found, launchers = [], []
    for process in psutil.process_iter(["pid"]):
        line = _command_line(process)
        launches = any(w.endswith(TRAINER_SUFFIX) for w in line) and role_of(line, []) is Role.LAUNCHER
        if not launches and not is_trainer(line):
            continue
        where, name = _value(line, "--output_dir"), _value(line, "--output_name")
        if where is None or (output_name is not None and name != output_name):
            continue
        if run_mark and (_carried(process, RUN_VARIABLE) or run_mark) != run_mark:
            continue
        if (_cwd(process, cwd) / where).resolve() == output_dir.resolve():
            identity = identify(process.pid)
            if identity is not None and launches:
                launchers.append(identity)
            elif identity is not None and role_of(line, _parent_line(process)) is Role.TRAINER:
                found.append(identity)
    return found or (launchers if or_launchers else [])


def find_by_environment(variable: str, value: str) -> list[ProcessId]:
    """All processes of this machine whose environment holds `variable=value`, wherever they have gone.

    Left out are this process and those above it, and every other watchdog: a shell or a FluxGym that was started from
    within a training has inherited the variable, and is no part of the training.
    """
    own = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter(["pid"]):
        carries = process.pid not in own and _carried(process, variable) == value
        if carries and any(
            Path(w).name in ("fluxgym_watchdog", "fluxgym-watchdog") for w in _command_line(process)[:4]
        ):
            continue
        identity = identify(process.pid) if carries else None
        if identity is not None:
            found.append(identity)
    return found


def identify(pid: int) -> ProcessId | None:
    """The identity of the process that has this pid now; None where there is none, or only a zombie."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else _identity(process)
    except psutil.Error:
        return None


def find(identity: ProcessId) -> psutil.Process | None:
    """The living process of that identity; None where it is gone, or its pid belongs to another one now."""
    try:
        process = psutil.Process(identity.pid)
        same = abs(_identity(process).create_time - identity.create_time) <= CREATE_TIME_TOLERANCE_S
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _identity(process: psutil.Process) -> ProcessId:
    """The identity that the process had when it was first looked at: its create time moves when the clock is set."""
    stat, known = procfs.read_stat(process.pid), _identities.get(process.pid)
    if stat is not None and known is not None and known[1] == stat.started_ticks:
        return known[0]
    identity = ProcessId(process.pid, process.create_time())
    if stat is not None:
        _identities[process.pid] = (identity, stat.started_ticks)
    return identity


def with_wait_channels(processes: Iterable[Process]) -> tuple[Process, ...]:
    """The processes with `wchan` filled in."""
    return tuple(replace(p, wchan=procfs.wait_channel(p.id.pid)) for p in processes)


def _sample(known: _Known) -> Process | None:
    stat = procfs.read_stat(known.id.pid)
    if stat is None or known.started_ticks is None:
        return _sample_through_psutil(known)
    if stat.status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) or stat.started_ticks != known.started_ticks:
        return None
    read_bytes, write_bytes = procfs.read_io(known.id.pid) or (None, None)
    return Process(
        id=known.id,
        parent_pid=stat.parent_pid,
        role=known.role,
        name=stat.name,
        status=stat.status,
        cpu_s=stat.cpu_s,
        read_bytes=read_bytes,
        write_bytes=write_bytes,
        rss_bytes=stat.rss_bytes,
        wchan=procfs.wait_channel(known.id.pid) if known.role in (Role.TRAINER, Role.WORKER) else "",
    )


def _sample_through_psutil(known: _Known) -> Process | None:
    process = known.process
    try:
        with process.oneshot():
            status = process.status()
            if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) or not process.is_running():
                return None
            times = process.cpu_times()
            read_bytes, write_bytes = _io(process)
            return Process(
                id=known.id,
                parent_pid=process.ppid(),
                role=known.role,
                name=process.name(),
                status=str(status),
                cpu_s=times.user + times.system,
                read_bytes=read_bytes,
                write_bytes=write_bytes,
                rss_bytes=process.memory_info().rss,
            )
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return Process(known.id, 0, known.role, "?", "unknown")


def _io(process: psutil.Process) -> tuple[int | None, int | None]:
    try:
        counters = process.io_counters()
    except (psutil.Error, AttributeError, NotImplementedError, OSError):
        return None, None
    return int(counters.read_bytes), int(counters.write_bytes)


def _children_lookup() -> Callable[[int], Iterable[int]]:
    """From a pid to its children's: asked of the kernel one by one, or looked up in one list of the whole machine."""
    if procfs.children(os.getpid()) is not None:
        return lambda pid: procfs.children(pid) or ()
    table: dict[int, list[int]] = {}
    for process in psutil.process_iter(["ppid"]):
        table.setdefault(process.info["ppid"] or 0, []).append(process.pid)
    return lambda pid: table.get(pid, ())


def _parent_pid(process: psutil.Process) -> int:
    try:
        return int(process.ppid())
    except psutil.Error:
        return 0


def _parent_line(process: psutil.Process) -> list[str]:
    try:
        parent = process.parent()
    except psutil.Error:
        return []
    return _command_line(parent) if parent is not None else []


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.Error, OSError):
        return []


def _carried(process: psutil.Process, variable: str) -> str | None:
    """An environment variable of a process; None where it is not set, or not ours to read."""
    try:
        return process.environ().get(variable)
    except (psutil.Error, OSError):
        return None


def _cwd(process: psutil.Process, fallback: Path) -> Path:
    try:
        return Path(process.cwd())
    except (psutil.Error, OSError):
        return fallback


def _value(command_line: list[str], name: str) -> str | None:
    found = None
    for word, following in zip(command_line, [*command_line[1:], ""], strict=True):
        if word == name:
            found = following
        elif word.startswith(name + "="):
            found = word[len(name) + 1 :]
    return found
