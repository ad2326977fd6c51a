"""train.sh and train.bat, read and extended without disturbing a byte of the rest.

Options are appended right behind the last word of the training command: argparse takes the last of a doubled option,
so appending also overrides. What follows the last word (a trailing backslash, a comment, a missing newline) stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TRAINER = re.compile(r"_train_network\.py$")
LAUNCHER = re.compile(r"(^@?|[\\/])(accelerate|accelerate-launch|python[0-9.]*w?|py)(\.exe)?$", re.IGNORECASE)
LOOKED_FOR = "an 'accelerate launch … _train_network.py' command"
ONLY_TALK = frozenset({"echo", "printf", "eval", "cat", "grep", "test", "[", "[[", ":", "alias", "export", "trap"})
"""Commands that may name the training command without running it as their own words."""


class ScriptError(ValueError):
    """A script that is no train script; the message says what was looked for."""


class NotUnderstood(ScriptError):
    """A script that trains, but into which nothing can be put for certain; the message names the line.

    It can be started as it stands and watched, but not resumed.
    """


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a shell command: its text without quotes, where it ends in the script, in characters, and whether the
    shell makes something else of it (variables, commands, a home folder)."""

    text: str
    end: int
    expands: bool = False


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
        """The value of an option as the trainer will see it (the last one counts; a flag has the value '').

        What the shell would make of it is not in it: see `hides`.
        """
        return self._value(name)[0]

    def hides(self, name: str) -> bool:
        """Whether the value of an option is the shell's to make."""
        return self._value(name)[1]

    def _value(self, name: str) -> tuple[str | None, bool]:
        found: tuple[str | None, bool] = (None, False)
        words = list(zip(self.arguments, self.words[-len(self.arguments) :], strict=True))
        for (text, word), (following, value) in zip(words, [*words[1:], ("--", Word("--", 0))], strict=True):
            if text == name:
                found = ("", False) if following.startswith("--") else (following, value.expands)
            elif text.startswith(name + "="):
                found = (text[len(name) + 1 :], word.expands)
        return found


def read(content: bytes, *, batch: bool = False) -> Script:
    """The script with its training command. Raises ScriptError where there is none, NotUnderstood for other doubts."""
    text = content.decode("latin-1")
    if not text.strip():
        raise ScriptError(f"is empty; looked for {LOOKED_FOR}")
    try:
        commands = [c for c in (_batch_commands(text) if batch else _shell_commands(text)) if _trains(c)]
    except RecursionError as error:
        raise NotUnderstood("is nested too deeply to be understood") from error
    except NotUnderstood as error:
        if _names_a_trainer(text):
            raise
        raise ScriptError(f"has no {LOOKED_FOR[3:]} ({error})") from error
    if not commands and not batch and "\\\r\n" in text and _names_a_trainer(text):
        line = text.count("\n", 0, text.index("\\\r\n")) + 1
        raise NotUnderstood(f"line {line}: ends as Windows ends lines (CRLF), so bash does not go on in the next line")
    if not commands:
        raise ScriptError(f"has no {LOOKED_FOR[3:]}")
    if len(commands) > 1:
        lines = ", ".join(str(text.count("\n", 0, c[-1].end) + 1) for c in commands)
        raise NotUnderstood(f"has more than one training command (they end in lines {lines}); one is expected")
    return Script(text, tuple(commands[0]), batch)


def with_options(script: Script, options: Sequence[str]) -> bytes:
    """The script's bytes with options appended to its training command."""
    if not options:
        return script.text.encode("latin-1")
    quote = _batch_quoted if script.batch else _shell_quoted
    added = "".join(" " + quote(o) for o in options).encode("utf-8").decode("latin-1")
    end = script.words[-1].end
    return (script.text[:end] + added + script.text[end:]).encode("latin-1")


def _names_a_trainer(text: str) -> bool:
    return "_train_network.py" in text


def _trains(words: Sequence[Word]) -> bool:
    texts = [w.text for w in words]
    trainer = next((i for i, text in enumerate(texts) if TRAINER.search(text)), 0)
    launcher = next((i for i, text in enumerate(texts[:trainer]) if LAUNCHER.search(text)), None)
    command = next((t for t in texts if t not in _KEYWORDS and not re.match(r"[A-Za-z_]\w*\+?=", t)), "")
    if launcher is None or command.lstrip("@").lower() in ONLY_TALK:
        return False
    between = texts[launcher + 1 : trainer]
    # python runs the first file that it is given: `python other.py x_train_network.py` trains nothing.
    return "accelerate" in texts[launcher].lower() or "-m" in between or not any(t.endswith(".py") for t in between)


def _shell_quoted(word: str) -> str:
    return word if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", word) else "'" + word.replace("'", "'\"'\"'") + "'"


def _batch_quoted(word: str) -> str:
    word = word.replace("%", "%%")
    return word if re.fullmatch(r"[\w%@+=:,./\\-]+", word) else f'"{word}"'


_CONTINUED = re.compile(r"(?:\\(?:\n|\Z))+")
_WORD_ENDS = ("", *" \t\n;&|()<>")
_KEYWORDS = frozenset({"if", "then", "elif", "else", "while", "until", "do", "!", "{", "time"})


def _shell_commands(text: str) -> Iterable[list[Word]]:
    """The simple commands of a bash script as lists of words; see bash(1), "Shell Grammar" and "Quoting"."""
    words: list[Word] = []
    redirected = False
    i, n = 0, len(text)
    while i < n:
        c = text[i]
        if c in " \t":
            i += 1
        elif match := _CONTINUED.match(text, i):
            i = match.end()
        elif c == "#":
            while i < n and text[i] != "\n":
                i += 1
        elif text.startswith("<<", i) and not text.startswith("<<<", i):
            raise NotUnderstood(f"line {_line(text, i)}: here-documents are not understood")
        elif text.startswith("&>", i) or (c in "<>" and not text.startswith("(", i + 1)):
            if words and words[-1].end == i and re.fullmatch("[0-9]+", words[-1].text):
                words.pop()  # the 2 of 2>file
            i += 1
            while i < n and text[i] in "<>&|" and not text.startswith(("<(", ">("), i):
                i += 1
            redirected = True
        elif c in "\n;&|()":
            yield words
            words, redirected = [], False
            i += 1
        else:
            word, i = _shell_word(text, i)
            if not redirected:
                words.append(word)
            redirected = False
    yield words


def _shell_word(text: str, i: int) -> tuple[Word, int]:
    """A word from position i on: its text with quotes removed (expansions stay as written), and where it ends."""
    parts, n, expands = [], len(text), text[i] == "~"
    while i < n and text[i] not in " \t\n;&|()":
        if (match := _CONTINUED.match(text, i)) and text[match.end() : match.end() + 1] in _WORD_ENDS:
            break  # a continuation behind the word is not part of it
        end = _piece_end(text, i)
        if end == i + 1 and text[i] in "<>":
            break
        piece = text[i:end]
        if piece[0] == '"':
            expands = expands or re.search(r"[$`]", re.sub(r"\\.", "", piece, flags=re.DOTALL)) is not None
        else:
            expands = expands or (piece[0] in "$`*?[" and not piece.startswith("$'"))
        if piece[0] == "'":
            parts.append(piece[1:-1])
        elif piece[0] == '"':
            parts.append(re.sub(r'\\([$`"\\])', r"\1", piece[1:-1].replace("\\\n", "")))
        elif piece[0] == "\\" and len(piece) > 1:
            parts.append(piece[1:].replace("\n", ""))
        else:
            parts.append(piece)
        i = end
    return Word("".join(parts), i, expands), i


def _piece_end(text: str, i: int) -> int:
    """Where the piece of a word that begins at i ends: one character, an escaped one, a quotation, an expansion."""
    c = text[i]
    if c == "\\":
        return min(i + 2, len(text))
    if c == "'":
        return _closed(text, i, i + 1, "'", ())
    if text.startswith("$'", i):
        return _closed(text, i, i + 2, "'", ("\\",))
    if c == '"':
        return _closed(text, i, i + 1, '"', ("\\", "$(", "${", "`"))
    if c == "`":
        return _closed(text, i, i + 1, "`", ("\\",))
    if text.startswith("${", i):
        return _closed(text, i, i + 2, "}", ("\\", "'", '"', "$", "`"))
    if text.startswith(("$(", "<(", ">("), i):
        return _closed(text, i, i + 2, ")", ("\\", "'", '"', "$", "`", "("))
    if c == "(":
        return _closed(text, i, i + 1, ")", ("\\", "'", '"', "$", "`", "("))
    return i + 1


def _closed(text: str, start: int, i: int, closing: str, nested: tuple[str, ...]) -> int:
    """The position behind the `closing` of what began at `start`; `nested` is what may hold another such character."""
    while i < len(text):
        if text[i] == closing:
            return i + 1
        i = _piece_end(text, i) if text.startswith(nested, i) else i + 1
    raise NotUnderstood(f"line {_line(text, start)}: {text[start]} is not closed")


def _line(text: str, i: int) -> int:
    return text.count("\n", 0, i) + 1


_BATCH_PIECE = re.compile(
    r"""(?P<end>\r?\n | [&|]+ | (?<!\S)[()](?!\S))
      | (?P<word>(?:"[^"\r\n]*"? | \^[^\r\n] | [^\s^"&|<>])+)
      | (?P<redirection>[<>]+(?:&[0-9])?)
      | \^\r?\n | .""",
    re.ASCII | re.VERBOSE | re.DOTALL,
)


def _batch_commands(text: str) -> Iterable[list[Word]]:
    """The commands of a Windows batch file as lists of words; `^` at a line's end continues it, `rem` is a comment."""
    words: list[Word] = []
    redirected = False
    for piece in _BATCH_PIECE.finditer(text):
        remark = bool(words) and re.fullmatch(r"@?rem|::.*", words[0].text, re.IGNORECASE)
        if piece["end"] is not None and (not remark or "\n" in piece["end"]):
            yield words
            words, redirected = [], False
        elif remark:
            continue
        elif piece["redirection"] is not None:
            if words and words[-1].end == piece.start() and re.fullmatch("[0-9]", words[-1].text):
                words.pop()  # the 2 of 2>file
            redirected = not piece["redirection"].endswith(tuple("0123456789"))
        elif piece["word"] is not None:
            if not redirected:
                plain = re.sub(r'"([^"]*)"?|\^(.)', lambda m: m[1] or m[2] or "", piece["word"])
                words.append(Word(plain, piece.end(), "%" in plain or "!" in plain))
            redirected = False
    yield words
