"""train.sh and train.bat, read and extended without disturbing a byte of the rest.

Options are appended right behind the last word of the training command: argparse takes the last of a doubled option,
so appending also overrides. What follows the last word (a trailing backslash, a comment, a missing newline) stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TRAINER = re.compile(r"_train_network\.py$")
LAUNCHER = re.compile(r"(^|[\\/])(accelerate|python[\d.]*w?|py)(\.exe)?$|^accelerate\.commands\.launch$", re.IGNORECASE)
LOOKED_FOR = "an 'accelerate launch … _train_network.py' command"


class ScriptError(ValueError):
    """A script in which the training command cannot be found for certain; the message says what was looked for."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a shell command: its text without quotes, and where it ends in the script, in characters."""

    text: str
    end: int


@dataclass(frozen=True, slots=True)
class Script:
    """A train script and the training command found in it. `text` holds the bytes as latin-1: one character a byte."""

    text: str
    words: tuple[Word, ...]
    batch: bool = False

    @property
    def arguments(self) -> list[str]:
        """The words of the training command from the trainer's file on, as UTF-8 text."""
        words = [w.text.encode("latin-1").decode("utf-8", "replace") for w in self.words]
        return words[next(i for i, w in enumerate(words) if TRAINER.search(w)) :]

    def option(self, name: str) -> str | None:
        """The value of an option as the trainer will see it (the last one counts; a flag has the value '')."""
        found, words = None, self.arguments
        for word, following in zip(words, [*words[1:], "--"], strict=True):
            if word == name:
                found = "" if following.startswith("--") else following
            elif word.startswith(name + "="):
                found = word[len(name) + 1 :]
        return found


def read(content: bytes, *, batch: bool = False) -> Script:
    """The script with its training command. Raises ScriptError where there is none, or more than one."""
    text = content.decode("latin-1")
    commands = [c for c in (_batch_commands(text) if batch else _shell_commands(text)) if _trains(c)]
    if not commands:
        raise ScriptError(f"is empty; looked for {LOOKED_FOR}" if not text.strip() else f"has no {LOOKED_FOR[3:]}")
    if len(commands) > 1:
        lines = ", ".join(str(text.count("\n", 0, c[-1].end) + 1) for c in commands)
        raise ScriptError(f"has more than one training command (they end in lines {lines}); one is expected")
    return Script(text, tuple(commands[0]), batch)


def with_options(script: Script, options: Sequence[str]) -> bytes:
    """The script's bytes with options appended to its training command."""
    if not options:
        return script.text.encode("latin-1")
    quote = _batch_quoted if script.batch else _shell_quoted
    added = "".join(" " + quote(o) for o in options).encode("utf-8").decode("latin-1")
    end = script.words[-1].end
    return (script.text[:end] + added + script.text[end:]).encode("latin-1")


def _trains(words: Sequence[Word]) -> bool:
    trainer = next((i for i, w in enumerate(words) if TRAINER.search(w.text)), None)
    return trainer is not None and any(LAUNCHER.search(w.text) for w in words[:trainer])


def _shell_quoted(word: str) -> str:
    return word if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", word) else "'" + word.replace("'", "'\"'\"'") + "'"


def _batch_quoted(word: str) -> str:
    word = word.replace("%", "%%")
    return word if re.fullmatch(r"[\w%@+=:,./\\-]+", word) else f'"{word}"'


def _shell_commands(text: str) -> Iterable[list[Word]]:
    """The simple commands of a bash script as lists of words; see bash(1), "Shell Grammar" and "Quoting"."""
    words: list[Word] = []
    redirected = False
    i, n = 0, len(text)
    while i < n:
        c = text[i]
        if c in " \t":
            i += 1
        elif text.startswith("\\\n", i) or (c == "\\" and i + 1 == n):
            i += 2
        elif c == "#":
            while i < n and text[i] != "\n":
                i += 1
        elif text.startswith("<<", i) and not text.startswith("<<<", i):
            raise ScriptError(f"line {text.count(chr(10), 0, i) + 1}: here-documents are not understood")
        elif c in "<>" or (c == "&" and text.startswith("&>", i)):
            if words and words[-1].end == i and words[-1].text.isdigit():
                words.pop()  # the 2 of 2>file
            i += 1
            while i < n and text[i] in "<>&|":
                i += 1
            redirected = True
        elif c in "\n;&|()":
            yield words
            words, redirected = [], False
            i += 1
        else:
            word, i = _shell_word(text, i)
            if not redirected:
                words.append(Word(word, i))
            redirected = False
    yield words


def _shell_word(text: str, i: int) -> tuple[str, int]:
    """A word from position i on: its text with quotes removed (expansions stay as written), and where it ends."""
    start, parts, n = i, [], len(text)
    while i < n and text[i] not in " \t\n;&|()<>":
        c = text[i]
        if c == "\\":
            if i + 1 == n or text.startswith("\\\n", i):
                if i + 1 == n or (i + 2 >= n or text[i + 2] in " \t\n"):
                    break  # a continuation behind the word is not part of it
                i += 2
                continue
            parts.append(text[i + 1])
            i += 2
        elif c == "'":
            end = _closing(text, i + 1, "'", start)
            parts.append(text[i + 1 : end])
            i = end + 1
        elif c in '"`':
            end = i + 1
            while end < n and text[end] != c:
                end += 2 if text[end] == "\\" else 1
            end = _closing(text, min(end, n), c, start)
            parts.append(text[i + 1 : end])
            i = end + 1
        elif text.startswith(("$(", "${"), i):
            end = _expansion_end(text, i, start)
            parts.append(text[i:end])
            i = end
        else:
            parts.append(c)
            i += 1
    return "".join(parts), i


def _closing(text: str, i: int, quote: str, start: int) -> int:
    end = text.find(quote, i)
    if end < 0:
        raise ScriptError(f"line {text.count(chr(10), 0, start) + 1}: a quote {quote} is not closed")
    return end


def _expansion_end(text: str, i: int, start: int) -> int:
    opening, closing = text[i + 1], ")" if text[i + 1] == "(" else "}"
    depth = 0
    while i < len(text):
        depth += (text[i] == opening) - (text[i] == closing)
        i += 1
        if text[i - 1] == closing and depth == 0:
            return i
    raise ScriptError(f"line {text.count(chr(10), 0, start) + 1}: ${opening} is not closed")


def _batch_commands(text: str) -> Iterable[list[Word]]:
    """The logical lines of a Windows batch file as lists of words; `^` at a line's end continues it."""
    i = 0
    for line in re.finditer(r"(?:[^\n^]|\^\r?\n|\^.?)*(?:\n|$)", text):
        words = []
        if not re.match(r"\s*(?:@?rem\b|::)", line.group(), re.IGNORECASE):
            for word in re.finditer(r'(?:"[^"\n]*"?|\^[^\r\n]|[^\s^"&|<>])+', line.group()):
                plain = re.sub(r"\^(.)", r"\1", word.group().replace('"', ""))
                words.append(Word(plain, line.start() + word.end()))
        i = line.end()
        yield words
        if i >= len(text):
            return
