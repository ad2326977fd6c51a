"""Is this run advancing? From a pulse and a snapshot to healthy, suspect, stalled or blind.

A run is stalled when one of these has run out:

* Stopped: a process of the tree is in state T, or the trainer waits for a pipe to be read, and the tree uses neither
  CPU nor disk. Neither ends by itself: `LEAST_PATIENCE_S`, in any phase.
* The outer rule, in any phase: no progress, every GPU of the run under `gpu_threshold`, and a tree that uses neither
  CPU nor disk, for `stuck_threshold`. It is the rule that people know from the first FluxGym monitor, made stricter:
  a GPU at 0 % alone is normal while a run loads, caches or saves. Once steps are coming, and while images are
  sampled, CPU time no longer excuses: both are made on the GPU.
* The phase's own patience with silence, whatever CPU and GPU show: a spinning wait keeps both at 100 %. Between steps
  it is learned from the run itself. In all other phases moving bytes (a slow disk, a swapping machine) are work that
  no spinning process does: they postpone it, up to `MOVING_FACTOR` times `silent_limit`.

Half of any of them makes the run suspect: evidence is gathered, nothing is touched. No run is stalled without having
been suspect at the look before.

Limits. A spinning process and a driver that compiles its kernels for a new GPU (minutes, one core, not a word) look
the same before the first caching count and the first step: both get `silent_limit`. A kernel that spins for ever on a
GPU whose memory is full looks like a training that spills into RAM: it gets longer, too.
"""

from __future__ import annotations

from fluxgym_watchdog.judge.progress import Pulse
from fluxgym_watchdog.records import Finding, FindingKind, Phase, Role, Snapshot
from fluxgym_watchdog.settings import Settings

SUSPECT_SHARE = 0.5
LEARNED_FACTOR = 10.0
"""Between steps, a silence this many times the usual one is no longer normal: a game on the same GPU makes steps 2 to 4
times slower, bucketed image sizes and a throttled GPU 1.5 to 2.5 times, and they come together at times."""
IDLE_FACTOR = 6.0
"""The same for a GPU that has been idle all along: in a slow step it is busy."""
UNEVEN_FACTOR = 10.0
"""The same while caching and downloading, where one image can be as large as ten others."""
RECOVERED_FACTOR = 2.0
"""What a run has once recovered from is normal for it, with as much again."""
LEARNED_AFTER_GAPS = 8
"""Fewer gaps than this teach nothing: the first steps are the slow ones."""
LEARNED_AFTER_GAPS_SAMPLING = 45
"""Two images of 20 steps: only then has the silence been seen in which a picture is decoded."""
LEAST_PATIENCE_S = 45.0
"""Under this a pause for garbage, a new epoch's workers (15 s) or a driver's reset would look like a hang."""
SAMPLING_PATIENCE_S = 900.0
"""Before samples have been seen: encoding, and decoding a large picture on a small GPU."""
MOVING_FACTOR = 4.0
"""22 GB of models at 5 MB/s take 75 minutes (FluxGym issues 56, 95: an hour at "caching" with swap)."""
FULL_MEMORY_SHARE = 0.97
"""From here on a Windows driver moves video memory into RAM; a first step of an hour ended well (issues 249, 426)."""
BUSY_WITHIN_S = 60.0
"""A busy GPU shows 0 % at single looks, between two kernels."""
FIRST_STEP_FACTOR = 2.0
"""Kernels compiled for a new GPU (25 min) and a slow first step (16 min) add up, in silence."""
SLOW_STEP_FACTOR = 3.0
NO_GPU_WORK = frozenset(
    {
        Phase.IMPORTS,
        Phase.DOWNLOAD,
        Phase.LOADING,
        Phase.CACHING_LATENTS,
        Phase.CACHING_TEXT,
        Phase.SAVING,
        Phase.ENDING,
    }
)
"""Phases in which a busy GPU is another program's, or comes with CPU time of our own: it is no sign of life."""
AFTER_THE_END = "after the end"
"""The cause of a stall in which nothing is lost: there is nothing left to train."""


def judge(pulse: Pulse, snapshot: Snapshot, settings: Settings) -> Finding:
    """Healthy, suspect, stalled or blind. Only for a run whose training is alive."""
    silence = snapshot.monotonic_at - pulse.advanced_at
    if snapshot.log is not None and snapshot.log.problem:
        return Finding(FindingKind.BLIND, f"cannot see the progress: {snapshot.log.problem}", silence_s=silence)
    spent, due = max((waited / patience, patience) for waited, patience in _clocks(pulse, snapshot, settings))
    if spent >= 1 and _was_suspect(pulse):
        if snapshot.log is None or not snapshot.log.model_saved or snapshot.final_weights_at is None:
            return Finding(FindingKind.STALLED, _words(pulse, snapshot, silence), silence_s=silence, patience_s=due)
        if not any(p.role in (Role.TRAINER, Role.LAUNCHER) for p in snapshot.tree.processes):
            # What the script does after the training may take as long as it likes.
            return Finding(FindingKind.FINISHED, "the final weights are saved")
        text = "the final weights are saved, but the trainer does not end"
        return Finding(FindingKind.STALLED, text, AFTER_THE_END, silence_s=silence, patience_s=due)
    if spent >= SUSPECT_SHARE:
        return Finding(FindingKind.SUSPECT, _words(pulse, snapshot, silence), silence_s=silence, patience_s=due)
    if snapshot.gpu.expected and not snapshot.gpu.gpus:
        return Finding(FindingKind.BLIND, f"cannot see the GPU any more: {snapshot.gpu.problem}", silence_s=silence)
    return Finding(FindingKind.HEALTHY, "", silence_s=silence, patience_s=due)


def _was_suspect(pulse: Pulse) -> bool:
    # The pulse before has none before it, so that the look before is suspect at most, and no other is asked for.
    before = pulse.before
    return before is not None and before.look is not None and judge(before, *before.look).kind is FindingKind.SUSPECT


def _clocks(pulse: Pulse, snapshot: Snapshot, settings: Settings) -> list[tuple[float, float]]:
    """What runs out: pairs of seconds waited and seconds of patience."""
    now, silence = snapshot.monotonic_at, snapshot.monotonic_at - pulse.advanced_at
    clocks = [(now - _lively_at(pulse, snapshot), outer_patience(pulse, snapshot, settings))]
    patience = phase_patience(pulse, snapshot, settings)
    if pulse.phase is Phase.TRAINING:
        # A disk that comes back has the whole patience before it; a step must still be made then.
        clocks.append((now - max(pulse.advanced_at, pulse.waited_at), patience))
        clocks.append((silence, settings.stuck_threshold + patience))
        if _gpu_seen(snapshot) and not spills(pulse, snapshot):
            idle_since = max(pulse.advanced_at, pulse.waited_at, pulse.gpu_busy_at)
            clocks.append((now - idle_since, _training_patience(pulse, settings, IDLE_FACTOR)))
    else:
        clocks.append((now - max(pulse.advanced_at, pulse.moved_at), patience))
        clocks.append((silence, max(MOVING_FACTOR * settings.silent_limit, patience)))
    if pulse.phase is Phase.FIRST_STEP and _gpu_seen(snapshot):  # one core busy, but not the GPU
        idle_since = max(pulse.advanced_at, pulse.moved_at, pulse.gpu_busy_at)
        clocks.append((now - idle_since, max(settings.silent_limit, RECOVERED_FACTOR * _longest_step(pulse))))
    if pulse.stopped_since is not None:
        clocks.append((now - max(pulse.advanced_at, pulse.worked_at, pulse.stopped_since), _least(settings)))
    return clocks


def _lively_at(pulse: Pulse, snapshot: Snapshot) -> float:
    """The last sign of life that counts in this phase."""
    if pulse.phase in NO_GPU_WORK:
        return max(pulse.advanced_at, pulse.worked_at)
    if pulse.phase in (Phase.TRAINING, Phase.SAMPLING) and _gpu_seen(snapshot):
        return max(pulse.advanced_at, pulse.moved_at, pulse.gpu_busy_at)
    return max(pulse.advanced_at, pulse.worked_at, pulse.gpu_busy_at)


def outer_patience(pulse: Pulse, snapshot: Snapshot, settings: Settings) -> float:
    """How long a run may show no life at all, in seconds."""
    if _gpu_seen(snapshot):
        return settings.stuck_threshold
    if snapshot.log is None:
        return 2 * settings.stuck_threshold  # neither log nor GPU: the least is seen, so the longest is waited
    # Without a GPU to read, a slow step looks like an idle one.
    return max(settings.stuck_threshold, SLOW_STEP_FACTOR * _longest_step(pulse))


def phase_patience(pulse: Pulse, snapshot: Snapshot, settings: Settings) -> float:
    """How long a run may go without progress in its phase, whatever its CPU and GPU do, in seconds."""
    if pulse.phase is Phase.TRAINING:
        patience = _training_patience(pulse, settings, LEARNED_FACTOR)
        return max(patience, settings.silent_limit) if spills(pulse, snapshot) else patience
    patience = max(_other_patience(pulse, settings), RECOVERED_FACTOR * pulse.longest.get(pulse.phase.value, 0.0))
    return max(patience, MOVING_FACTOR * settings.silent_limit) if spills(pulse, snapshot) else patience


def _training_patience(pulse: Pulse, settings: Settings, factor: float) -> float:
    phase, longest = Phase.TRAINING.value, _longest_step(pulse)
    most = max(settings.silent_limit, SLOW_STEP_FACTOR * longest)
    if pulse.gaps.get(phase, 0) < LEARNED_AFTER_GAPS:
        return min(max(settings.stuck_threshold, factor * longest), most)
    recovered = min(RECOVERED_FACTOR * pulse.longest.get(phase, 0.0), most)
    return max(_least(settings), factor * pulse.usual.get(phase, 0.0), recovered)


def _other_patience(pulse: Pulse, settings: Settings) -> float:
    if pulse.phase in (Phase.SAVING, Phase.ENDING):
        return settings.stuck_threshold  # what is written moves; only seconds are computed
    if pulse.phase is Phase.FIRST_STEP:
        return FIRST_STEP_FACTOR * settings.silent_limit
    sampling = pulse.phase is Phase.SAMPLING
    known = pulse.gaps.get(pulse.phase.value, 0) >= (LEARNED_AFTER_GAPS_SAMPLING if sampling else LEARNED_AFTER_GAPS)
    untaught = SAMPLING_PATIENCE_S if sampling else settings.silent_limit
    if not known or pulse.phase is Phase.UNKNOWN:  # unknown: its quick gaps say nothing about the slow ones to come
        return untaught
    return min(untaught, max(settings.stuck_threshold, UNEVEN_FACTOR * pulse.usual[pulse.phase.value]))


def _least(settings: Settings) -> float:
    return min(LEAST_PATIENCE_S, settings.stuck_threshold)


def _longest_step(pulse: Pulse) -> float:
    return max(pulse.longest.get(Phase.TRAINING.value, 0.0), pulse.longest.get(Phase.FIRST_STEP.value, 0.0))


def _gpu_seen(snapshot: Snapshot) -> bool:
    return any(g.utilization_percent is not None for g in snapshot.run_gpus)


def spills(pulse: Pulse, snapshot: Snapshot) -> bool:
    """Whether video memory is full and the GPU was busy just now: then steps take minutes, and no restart helps."""
    full = any(
        g.memory_total_bytes and (g.memory_used_bytes or 0) >= FULL_MEMORY_SHARE * g.memory_total_bytes
        for g in snapshot.run_gpus
    )
    return full and pulse.seen_at - pulse.gpu_busy_at <= BUSY_WITHIN_S


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
