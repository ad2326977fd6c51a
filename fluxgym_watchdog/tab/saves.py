"""How much work hangs on the run's saves → HTML. Pure."""

from __future__ import annotations

from fluxgym_watchdog.records import CheckpointKind, SaveOffer, Status
from fluxgym_watchdog.tab.seen import Seen
from fluxgym_watchdog.tab.tables import action
from fluxgym_watchdog.tab.words import duration, escape, many, sentence, size


def at_risk(seen: Seen, now: float) -> list[tuple[str, str]]:
    """The work that a crash at this moment would cost."""
    record, status = seen.record, seen.status
    saves = status.saves if status else None
    if saves is not None:
        steps = many(saves.since_steps, "step")
        coming = f"; the next one in {many(saves.next_in_steps, 'step')}" if saves.next_in_steps is not None else ""
        if saves.since_s is None:
            return [(steps, f"of work since the last save{coming}")]
        return [(duration(saves.since_s), f"of work since the last save, {steps}{coming}")]
    began = record.began_at if record else 0.0
    sound = [c.saved_at for c in seen.checkpoints if c.kind is CheckpointKind.STATE and c.sound and not c.aside]
    newest = max((at for at in sound if at >= began), default=None)
    since = newest or (record.attempt.started_at if record and record.attempt else None)
    return [(duration(now - since), "of work at risk now")] if since else []


def next_save(status: Status) -> str:
    """Whether the disk has room for the next save, to be put behind what is left of it."""
    saves = status.saves
    if saves is None or saves.next_bytes is None or saves.fits is None:
        return ""
    about = "about " if saves.estimated else ""
    return f", the next save ({about}{size(saves.next_bytes)}) {'fits' if saves.fits else 'does not fit'}"


def question(seen: Seen) -> str:
    """The warning about how rarely the run saves, and the question whether it should do so more often."""
    saves = seen.status.saves if seen.status and seen.live else None
    if saves is None:
        return ""
    html = f"<p class='wd-says wd-act'>{escape(sentence(saves.warning))}</p>" if saves.warning else ""
    answer = seen.pending("saves")
    if answer is not None:
        text = "It saves more often" if answer.get("closer") is True else "It saves as the script says"
        return f"{html}<p class='wd-says'>{text} from the next attempt on.</p>"
    if saves.offer is None:
        return html
    closer = action("saves", "closer", _offered(saves.offer), style="wd-button")
    keep = action("saves", "keep", "Keep as the script says", style="wd-button")
    return f"{html}<p><b>Save more often?</b></p><p>{closer}{keep}</p>"


def _offered(offer: SaveOffer) -> str:
    """The offer as a button says it: `Save every epoch: at most 6 min at risk, 12 more files, 2.1 GB`."""
    unit = "epoch" if "epoch" in offer.option else "step"
    facts = []
    if offer.most_s is not None:
        facts.append(f"at most {duration(offer.most_s)} at risk")
    facts.append(many(offer.more_files, "more file"))
    if offer.more_bytes is not None:
        facts.append(size(offer.more_bytes))
    every = unit if offer.every == 1 else f"{offer.every} {unit}s"
    return f"Save every {every}: {', '.join(facts)}"
