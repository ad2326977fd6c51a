"""Files of ours, read and written so that neither a crash, a full disk nor a pipe in their place does harm."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def writing(path: Path, top: Path) -> Iterator[None]:
    """Makes the folder, `top` or below it, for a file that is written in the block, and names the file in an OSError.

    What lies above `top` is not made: a run that was deleted must not come back as an empty one.
    """
    try:
        if not path.parent.is_dir():
            top.mkdir(exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def replace_file(path: Path, top: Path, text: str, *, sync: bool = False) -> None:
    """Replaces a file as a whole, on the disk at once where `sync` asks for it. Raises OSError."""
    scratch = path.with_name(f".{path.name}.part")
    with writing(path, top):
        try:
            with scratch.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
                file.write(text)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            _take_the_place_of(path, scratch)
        except OSError:
            with contextlib.suppress(OSError):
                scratch.unlink()
            raise


def _take_the_place_of(path: Path, scratch: Path) -> None:
    # Windows refuses while somebody reads the file, which takes a moment.
    for wait_s in (0.01, 0.05) if os.name == "nt" else ():
        try:
            scratch.replace(path)
            return
        except PermissionError:
            time.sleep(wait_s)
    scratch.replace(path)


def write_over(path: Path, top: Path, content: bytes) -> None:
    """Writes over a file in place, in one call that leaves no rest of a longer one: what is behind it are blanks.

    Raises OSError.
    """
    with writing(path, top):
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            there = os.fstat(file)
            if not stat.S_ISREG(there.st_mode):
                raise OSError(errno.EINVAL, "is not a file")
            content = content.ljust(there.st_size)
            if os.write(file, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(file)


def text_of(path: Path) -> str:
    """A file's text. Raises OSError also for what is no file: opening a pipe would wait for its other end for ever."""
    must_be_file(path)
    return path.read_text(encoding="utf-8")


def must_be_file(path: Path) -> None:
    """Raises OSError for what is no file, or not there."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "is not a file", str(path))


def set_aside(path: Path, why: str) -> str:
    """Gives a file another name, and says which, or why it could not."""
    aside = free_name(path.with_name(f"{path.name}.{why}-{int(time.time())}"))
    try:
        path.replace(aside)
    except OSError as error:
        return f"it cannot be set aside: {error}"
    return f"set aside as {aside.name}"


def free_name(path: Path) -> Path:
    """The path, or where something has that name the first of PATH-2, PATH-3 and so on."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(free for free in itertools.chain([path], numbered) if not os.path.lexists(free))


def locked(file: IO[bytes], *, shared: bool) -> bool:
    """Whether the operating system gave us the lock on a file; shared: with others who only ask. Raises OSError."""
    try:
        if os.name == "nt":
            import msvcrt  # noqa: PLC0415 - exists on Windows alone

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl  # noqa: PLC0415 - exists on POSIX alone

            fcntl.flock(file.fileno(), (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def last_lines(path: Path, most_bytes: int) -> list[str]:
    """The lines within the last bytes of a file, oldest first; none where it cannot be read."""
    try:
        must_be_file(path)
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - most_bytes)
            file.seek(start)
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return []
    return [line for line in lines[1 if start else 0 :] if line]
