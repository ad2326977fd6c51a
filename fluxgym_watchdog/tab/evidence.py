"""What a run's owner can show to somebody who helps: the evidence of one event as a zip, without any secret."""

from __future__ import annotations

import io
import json
import re
import stat
import zipfile
from pathlib import Path

from fluxgym_watchdog import samples as sample_lines
from fluxgym_watchdog.records import Event
from fluxgym_watchdog.store import Store, plain
from fluxgym_watchdog.tab.feed import log_tail
from fluxgym_watchdog.tab.words import sendable

AROUND_S = 1800.0
"""Samples from so long before the event, and after it, go along."""
FILE_BYTES = 1_000_000
"""Of a longer file only its end goes along."""

_FOLDER = re.compile(r"evidence/[0-9A-Za-z-]{1,40}")
_NAME = r"(?:token|(?:api|access|secret|private)[_ -]?key(?:[_ -]?id)?|secret|password|passwd|passphrase)"
_VALUE = r"""(?:\\?"[^"\n]*"|\\?'[^'\n]*'|(?:[^\s"',;&\\]|\\[^"'])+)"""
_BEGIN = r"(?:\b|(?<=\\[nrt]))"
"""A word's begin, also after a newline that JSON writes as two letters."""
_SECRETS = tuple(
    re.compile(secret)
    for secret in (
        rf"{_BEGIN}(hf_|gh[pousr]_|github_pat_|glpat-|xox[abeprs]-)[A-Za-z0-9_-]{{8,}}",
        rf"{_BEGIN}(sk-)[A-Za-z0-9_-]{{16,}}",
        rf"{_BEGIN}(AKIA|ASIA)[A-Z0-9]{{12,}}",
        r"(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}",
        r"(://)[^/\s\"']+(?=@)",
        r"(?i)(hooks\.slack\.com/\w+/)[\w/-]+",
        r"(?i)(discord(?:app)?\.com/api/(?:v\d+/)?webhooks/)[\w/-]+",
        r"(?i)(api\.telegram\.org/(?:file/)?bot)[\w:-]+",
        rf"""(?i)({_NAME}\\?["']?\s*[=:]\s*){_VALUE}""",
        rf"(?i)((?<!-)--[\w-]{{0,60}}?{_NAME}\s+){_VALUE}",
        rf"(?i)({_NAME}\s+)(?=\S*\d)[\w./+=-]{{8,}}",
    )
)
"""What comes before a secret, to be kept, and the secret itself."""


def packed(store: Store, event: Event) -> bytes:
    """A zip of the event, what its closer look has found, the samples around it, the timeline, and the log's end.

    Only files that the watchdog has written are read, and no link is followed. Raises OSError.
    """
    log = store.run_folder / "training.log"
    files = {
        "event.json": json.dumps(plain(event), indent=1, ensure_ascii=False),
        "events.jsonl": "\n".join(json.dumps(plain(e), ensure_ascii=False) for e in store.read_events()),
        "samples.csv": _samples(store, event.at),
        "log.txt": "" if log.is_symlink() else "\n".join(log_tail(store.run_folder)[0]),
        **_looked_at(store, str(event.evidence.get("folder", ""))),
    }
    packed_bytes = io.BytesIO()
    with zipfile.ZipFile(packed_bytes, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(sendable(name), sendable(redacted(text)))
    return packed_bytes.getvalue()


def redacted(text: str) -> str:
    """The text without what looks like a token, a key or a password."""
    for secret in _SECRETS:
        text = secret.sub(r"\1…", text)
    return text


def _looked_at(store: Store, folder: str) -> dict[str, str]:
    """The text files of a closer look. The folder's name comes from a file that may have been copied from anywhere."""
    place = store.folder / folder
    if not _FOLDER.fullmatch(folder) or place.resolve() != store.folder.resolve() / folder:
        return {}
    try:
        paths = sorted(place.glob("*.txt"))
    except OSError:
        return {}
    return {path.name: _text(path) for path in paths if stat.S_ISREG(path.lstat().st_mode)}


def _text(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - FILE_BYTES))
        return file.read().decode("utf-8", "replace")


def _samples(store: Store, at: float) -> str:
    around = [s for s in store.read_samples(since=at - AROUND_S) if s.at <= at + AROUND_S]
    return sample_lines.text(around)
