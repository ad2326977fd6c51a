"""Is this run advancing? From a pulse and a snapshot to healthy, suspect, stalled or blind.

Two rules, whichever is reached first:

* The outer rule, in any phase: no progress, every GPU of the run under `gpu_threshold`, and a tree that uses neither
  CPU nor disk, for `stuck_threshold`. It is the rule that people know from the first FluxGym monitor, made stricter:
  a GPU at 0 % alone is normal while a run loads, caches or saves.
* The phase's own patience with silence, whatever CPU and GPU show: a spinning wait keeps both at 100 %. Where steps
  come it is learned from the run itself; phases that are silent by nature get `silent_limit`.

Half of either makes the run suspect: evidence is gathered, nothing is touched.
"""

from __future__ import annotations

import math

from fluxgym_watchdog.judge.progress import Pulse
from fluxgym_watchdog.records import Finding, FindingKind, Phase, Snapshot
from fluxgym_watchdog.settings import Settings

SUSPECT_SHARE = 0.5
LEARNED_FACTOR = 6.0
"""A silence this many times the longest normal one is no longer normal."""
LEARNED_AFTER_GAPS = 8
"""Fewer gaps than this teach nothing: the first steps are the slow ones."""
LEAST_PATIENCE_S = 45.0
"""Under this a hiccup of a network disk would look like a hang."""
SLOW_STEP_FACTOR = 3.0
SILENT_PHASES = frozenset(
    {Phase.IMPORTS, Phase.DOWNLOAD, Phase.LOADING, Phase.CACHING_LATENTS, Phase.CACHING_TEXT, Phase.FIRST_STEP}
)
DEFAULT_PATIENCE_S = {Phase.SAVING: 600.0, Phase.SAMPLING: 900.0, Phase.ENDING: 600.0}
"""Before a run has shown how long it takes: a save to a slow network disk, a set of large sample images."""


def judge(pulse: Pulse, snapshot: Snapshot, settings: Settings) -> Finding:
    """Healthy, suspect, stalled or blind. Only for a run whose training is alive."""
    silence = snapshot.monotonic_at - pulse.advanced_at
    quiet = snapshot.monotonic_at - max(pulse.advanced_at, pulse.lively_at)
    if snapshot.log is not None and snapshot.log.problem:
        return Finding(FindingKind.BLIND, f"cannot see the progress: {snapshot.log.problem}", silence_s=silence)
    patience, outer = phase_patience(pulse, snapshot, settings), outer_patience(pulse, snapshot, settings)
    spent = max(silence / patience, quiet / outer)
    due = patience if silence / patience >= quiet / outer else outer
    if spent >= 1:
        return Finding(FindingKind.STALLED, _words(pulse, snapshot, silence), silence_s=silence, patience_s=due)
    if spent >= SUSPECT_SHARE:
        return Finding(FindingKind.SUSPECT, _words(pulse, snapshot, silence), silence_s=silence, patience_s=due)
    if snapshot.gpu.expected and not snapshot.gpu.gpus:
        return Finding(FindingKind.BLIND, f"cannot see the GPU any more: {snapshot.gpu.problem}", silence_s=silence)
    return Finding(FindingKind.HEALTHY, "", silence_s=silence, patience_s=due)


def outer_patience(pulse: Pulse, snapshot: Snapshot, settings: Settings) -> float:
    """How long a run may show no life at all, in seconds."""
    if any(g.utilization_percent is not None for g in snapshot.run_gpus):
        return settings.stuck_threshold
    if snapshot.log is None:
        return 2 * settings.stuck_threshold  # neither log nor GPU: the least is seen, so the longest is waited
    # Without a GPU to read, a slow step looks like an idle one.
    return max(settings.stuck_threshold, SLOW_STEP_FACTOR * _longest_step(pulse))


def phase_patience(pulse: Pulse, snapshot: Snapshot, settings: Settings) -> float:
    """How long a run may go without progress in its phase, whatever else it does, in seconds."""
    if pulse.phase is Phase.UNKNOWN:
        return math.inf
    if pulse.phase in SILENT_PHASES:
        return max(settings.silent_limit, SLOW_STEP_FACTOR * pulse.longest.get(pulse.phase.value, 0.0))
    if pulse.phase is Phase.TRAINING:
        return _training_patience(pulse, snapshot, settings)
    longest = pulse.longest.get(pulse.phase.value, 0.0)
    return max(DEFAULT_PATIENCE_S[pulse.phase], SLOW_STEP_FACTOR * longest)


def _training_patience(pulse: Pulse, snapshot: Snapshot, settings: Settings) -> float:
    longest = _longest_step(pulse)
    ceiling = max(settings.silent_limit, SLOW_STEP_FACTOR * longest)
    if pulse.gaps < LEARNED_AFTER_GAPS:
        gpu_seen = any(g.utilization_percent is not None for g in snapshot.run_gpus)
        return ceiling if gpu_seen else max(settings.stuck_threshold, LEARNED_FACTOR * longest)
    learned = max(LEARNED_FACTOR * longest, min(LEAST_PATIENCE_S, settings.stuck_threshold))
    waits_for_disk = pulse.reads_disk or any(p.status == "disk-sleep" for p in snapshot.tree.processes)
    if waits_for_disk:  # slow is not dead
        learned = max(learned, settings.stuck_threshold)
    return min(learned, ceiling)


def _longest_step(pulse: Pulse) -> float:
    return max(pulse.longest.get(Phase.TRAINING.value, 0.0), pulse.longest.get(Phase.FIRST_STEP.value, 0.0))


def _words(pulse: Pulse, snapshot: Snapshot, silence: float) -> str:
    utilisations = [g.utilization_percent for g in snapshot.run_gpus if g.utilization_percent is not None]
    gpu = f"GPU at {max(utilisations):.0f} %" if utilisations else "no GPU to read"
    normal = pulse.longest.get(pulse.phase.value)
    usual = f" (longest so far {duration(normal)})" if normal else ""
    what = "step" if pulse.phase is Phase.TRAINING else f"progress ({pulse.phase.value})"
    stopped = [p for p in snapshot.tree.processes if p.status == "stopped"]
    extra = f"; {stopped[0].role.value} {stopped[0].id.pid} is stopped" if stopped else ""
    return f"no {what} for {duration(silence)}{usual}, {gpu}{extra}"


def duration(seconds: float) -> str:
    """A duration as people say it: 42 s, 4 min 10 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 1:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
