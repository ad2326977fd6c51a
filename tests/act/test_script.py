"""Edits of train scripts, judged by bash itself: its words afterwards are its words before, and what was added."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluxgym_watchdog.act import script
from fluxgym_watchdog.act.script import ScriptError

ADDED = ["--save_state", "--resume", '/tmp/my lora\'s "best"/x-000002-state', "--note", "a\nb $HOME `id` \\ é"]
TRAINER = "sd-scripts/flux_train_network.py"

needs_bash = pytest.mark.skipif(os.name == "nt" or shutil.which("bash") is None, reason="bash is the judge here")


class Bash:
    """Runs scripts with stand-ins for accelerate and python that write down their words."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._words = folder / "words"
        (folder / "bin").mkdir()
        (folder / "sub dir").mkdir()
        (folder / "env.sh").write_text("export FROM_ENV=sourced\n")
        for name in ("accelerate", "python", "python3"):
            stand_in = folder / "bin" / name
            stand_in.write_text(
                f"#!/bin/sh\nprintf '%s\\0' {name} \"$@\" >>'{self._words}'\nprintf '\\2' >>'{self._words}'\n"
            )
            stand_in.chmod(0o755)

    def calls(self, *contents: bytes) -> list[bytes]:
        """For each script, what the stand-ins were called with; all run by one bash, each in a process of its own."""
        runs = []
        for number, content in enumerate(contents):
            (self.folder / f"{number}.sh").write_bytes(content)
            runs.append(f"bash {number}.sh </dev/null >/dev/null 2>&1; printf '\\1' >>'{self._words}'")
        self._words.write_bytes(b"")
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environ = {"PATH": path, "HOME": "/home/someone", "BIN": str(self.folder / "bin"), "LC_ALL": "C.UTF-8"}
        subprocess.run(["bash", "-c", "\n".join(runs)], cwd=self.folder, env=environ, check=True, timeout=120)
        return self._words.read_bytes().split(b"\1")[:-1]


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Bash:
    return Bash(tmp_path_factory.mktemp("bash"))


def edited(content: bytes, added: Sequence[str] = ADDED) -> bytes:
    return script.with_options(script.read(content), added)


def inserted(before: bytes, after: bytes) -> bytes:
    """What an edit inserted; every other byte must be where it was."""
    start = 0
    while start < len(before) and before[start] == after[start]:
        start += 1
    length = len(after) - len(before)
    while start >= 0:  # an insertion that begins like what follows it can be cut out at more than one place
        if after[:start] + after[start + length :] == before:
            return after[start : start + length]
        start -= 1
    raise AssertionError("bytes outside the insertion were changed")


def with_added(calls: bytes, added: Sequence[str] = ADDED) -> bytes:
    """The calls with words added to the one that trains."""
    words = b"".join(w.encode() + b"\0" for w in added)
    lines = calls.split(b"\2")
    training = [n for n, line in enumerate(lines) if b"_train_network.py\0" in line]
    assert len(training) == 1, f"{calls!r} trains {len(training)} times"
    lines[training[0]] += words
    return b"\2".join(lines)


def check(bash: Bash, *contents: bytes) -> None:
    after = [edited(content) for content in contents]
    for content, changed in zip(contents, after, strict=True):
        inserted(content, changed)
    calls = bash.calls(*contents, *after)
    for content, was, is_now in zip(contents, calls[: len(contents)], calls[len(contents) :], strict=True):
        assert is_now == with_added(was), content


FLUXGYM = b"""accelerate launch \\
  --mixed_precision bf16 \\
  --num_cpu_threads_per_process 1 \\
  sd-scripts/flux_train_network.py \\
  --pretrained_model_name_or_path "/fluxgym/models/unet/flux1-dev.sft" \\
  --output_dir "/fluxgym/outputs/my-lora" \\
  --output_name my-lora \\
  --optimizer_type adamw8bit \\--sample_prompts="/fluxgym/outputs/my-lora/prompts.txt" --sample_every_n_steps="20" \\
  --timestep_sampling shift \\
  --loss_type l2 \\"""

EXAMPLES = {
    "as FluxGym writes it": FLUXGYM,
    "with a newline behind the trailing backslash": FLUXGYM + b"\n",
    "with advanced options": FLUXGYM
    + b"\n  --lr_scheduler cosine \\\n  --network_args 'train_double_block_indices=all'",
    "trailing backslash glued to the last word": b"accelerate launch " + TRAINER.encode() + b" --loss_type l2\\",
    "the same with a newline": b"accelerate launch " + TRAINER.encode() + b" --loss_type l2\\\n",
    "the same with an empty line behind": b"accelerate launch " + TRAINER.encode() + b" --loss_type l2\\\n\n",
    "no option at all": b"accelerate launch " + TRAINER.encode(),
    "continued twice": b"accelerate launch \\\n\\\n " + TRAINER.encode() + b" --a b\\\n\\\n\\\n --c d\n",
    "a word in two lines": b"accelerate launch sd-scripts/flux_\\\ntrain_network.py --output_na\\\nme x\n",
    "lines before": b"#!/usr/bin/env bash\nset -e\ncd 'sub dir'\nsource ../env.sh\nexport A=\"b c\" D=e\n"
    b'accelerate launch x_train_network.py $FROM_ENV $A "$A" # the end\necho done\n',
    "an absolute accelerate": b'"$BIN"/accelerate launch x_train_network.py --a b',
    "accelerate as a module": b"python -m accelerate.commands.launch --num_processes 1 x_train_network.py --a b\n",
    "plain python": b"python -u 'my scripts/x_train_network.py' --a b\n",
    "python by another name": b"env A=1 python3 x_train_network.py\n",
    "redirected": b"accelerate launch x_train_network.py --a b >out.txt 2>&1\n",
    "redirected in between": b"accelerate launch 2>/dev/null x_train_network.py >>out.txt --a b &>/dev/null\n",
    "a number before a redirection": b"accelerate launch x_train_network.py --epochs 16 >out.txt 2>err.txt\n",
    "into a pipe": b"accelerate launch x_train_network.py --a b 2>&1 | tee -a out.txt\n",
    "into a pipe with errors": b"accelerate launch x_train_network.py --a b |& cat\n",
    "into a process": b"accelerate launch x_train_network.py --a b > >(cat >out.txt) 2> >(cat >&2)\n",
    "from a process": b"accelerate launch x_train_network.py --a b < <(echo 'x y')\n",
    "a here-string": b'accelerate launch x_train_network.py --a b <<< "yes no"\n',
    "in a chain": b"true && accelerate launch x_train_network.py --a b && echo fine || echo bad; true\n",
    "in the background": b"accelerate launch x_train_network.py --a b & wait\n",
    "in a subshell": b"(cd 'sub dir' && accelerate launch x_train_network.py --a b)\n",
    "in a group": b"{ accelerate launch x_train_network.py --a b; }\n",
    "in a condition": b"if ! accelerate launch x_train_network.py --a b; then echo bad; fi\n",
    "in a function": b"train() {\n  accelerate launch x_train_network.py \"$@\"\n}\ntrain --a 'b c'\n",
    "in an array": b"command=(accelerate launch x_train_network.py --a 'b c')\n\"${command[@]}\"\n",
    "quotes and escapes": b"accelerate launch x_train_network.py --a 'it'\"'\"'s' "
    b'--b "\\"x\\" \\$y \\\\" --c a\\ b\\\'c\n',
    "ANSI-C quotes": b"accelerate launch x_train_network.py --a $'it\\'s\\ttab' --b $\"x\" --c d\n",
    "newlines in values": b"accelerate launch x_train_network.py --a 'two\nlines' --b \"and\n  more\" \\\n --c d\n",
    "a comment sign in a word": b"accelerate launch x_train_network.py --a b#c '#d' \\#e # --f g\n",
    "separators in quotes": b"accelerate launch x_train_network.py --a ';' \"&& x | y > z\" '(' \")\" \\; \\&\n",
    "command substitution": b'accelerate launch x_train_network.py --a "$(echo "b c; d)" | cat)" --e $(echo \')\' f)\n',
    "nested expansions": b'accelerate launch x_train_network.py --a "${NONE:-"b } c"}" --d $((1 << (2 + 1)))\n',
    "backquotes": b'accelerate launch x_train_network.py --a `echo b c` --d "`echo "e f"`"\n',
    "empty values": b"accelerate launch x_train_network.py --a '' --b \"\"\n",
    "not ASCII": "accelerate launch x_train_network.py --output_name 猫à --trigger 'à é' --last à\n".encode(),
    "not UTF-8": b"accelerate launch x_train_network.py --output_name \xff\xfe\xa0 --last \x85\n",
    "CRLF on one line": b"accelerate launch x_train_network.py --a b\r\n",
    "another train_network before": b"echo x_train_network.py; cp x_train_network.py y\n"
    b"accelerate launch x_train_network.py\n",
    "a comment that names it": b"# accelerate launch x_train_network.py\n"
    b"accelerate launch x_train_network.py --a 'b' # x\n",
    "echo tells it first": b"echo accelerate launch x_train_network.py\naccelerate launch x_train_network.py --a b\n",
}


@needs_bash
def test_the_words_of_the_training_command_are_those_before_and_the_added_ones(bash: Bash) -> None:
    check(bash, *EXAMPLES.values())


LITERALS = st.text(
    st.one_of(
        st.sampled_from(" '\"\\$`#;&|<>(){}[]*?!~%=\n\tà猫x1-"),
        st.characters(codec="utf-8", exclude_characters="\0\1\2\r"),
    ),
    max_size=8,
)


def single(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def double(text: str) -> str:
    return '"' + re.sub(r'([$`"\\])', r"\\\1", text).replace("!", "\"'!'\"") + '"'


def escaped(text: str) -> str:
    return "".join("'\n'" if c == "\n" else "\\" + c for c in text) or "''"


WORDS = st.one_of(
    st.builds(single, LITERALS),
    st.builds(double, LITERALS),
    st.builds(escaped, LITERALS),
    st.sampled_from(
        [
            "--flag",
            "--name=x",
            "1e-4",
            "$HOME",
            '"$HOME/x y"',
            "${NONE:-a b}",
            '"$(echo "a b;c")"',
            "$'a\\'b\\n'",
            "`echo x`",
            "a\\\nb",
            "#x"[1:] + "#",
        ]
    ),
)
GAPS = st.sampled_from([" ", "  ", "\t", " \\\n  ", " \\\n\\\n ", " \\\n"])
BEFORE = st.sampled_from(
    [
        "",
        "#!/bin/bash\n",
        "cd 'sub dir'\n",
        "export A='x y'\n",
        "# a 'comment\n",
        ". ./env.sh; ",
        'A=1 B="2 3" ',
        "true && ",
    ]
)
LAUNCHERS = st.sampled_from(
    [
        "accelerate launch",
        "accelerate launch --mixed_precision bf16",
        '"$BIN/accelerate" launch',
        "python -m accelerate.commands.launch",
        "python",
        "python3 -u",
    ]
)
AFTER = st.sampled_from(
    [
        "",
        "\n",
        " \\",
        "\\",
        " \\\n",
        "\\\n",
        " # it's a \"comment",
        " >out.txt",
        " 2>&1 | cat",
        " && true\n",
        "; echo done\n",
        " &>/dev/null",
        "\n\n# end",
        " || exit 1",
    ]
)


@st.composite
def scripts(draw: st.DrawFn) -> bytes:
    words = draw(st.lists(WORDS, max_size=5))
    text = (
        draw(BEFORE)
        + draw(LAUNCHERS)
        + draw(GAPS)
        + draw(st.sampled_from([TRAINER, "'a b'/x_train_network.py", '"à_train_network.py"']))
    )
    for word in words:
        text += draw(GAPS) + word
    return (text + draw(AFTER)).encode()


@needs_bash
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(scripts(), min_size=1, max_size=12))
def test_any_script_keeps_its_words(bash: Bash, contents: list[bytes]) -> None:
    check(bash, *contents)


@needs_bash
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LITERALS, min_size=1, max_size=12))
def test_any_option_arrives_as_it_was_meant(bash: Bash, added: list[str]) -> None:
    before = b"accelerate launch x_train_network.py --a b \\"
    (calls,) = bash.calls(edited(before, added))
    words = ["accelerate", "launch", "x_train_network.py", "--a", "b", *added]
    assert calls == b"".join(word.encode() + b"\0" for word in words) + b"\2"


def test_nothing_to_add_changes_nothing() -> None:
    assert edited(FLUXGYM, []) == FLUXGYM


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; looked for an 'accelerate launch"),
        (b" \n\t\n", "is empty"),
        (b"echo hello\n", "has no 'accelerate launch … _train_network.py' command"),
        (b"accelerate launch train.py --a b\n", "has no 'accelerate launch"),
        (b"accelerate config x_train_network.py.bak\n", "has no"),
        (b"# accelerate launch x_train_network.py\n", "has no"),
        (b"echo accelerate launch x_train_network.py\n", "has no"),
        (b"if true; then echo accelerate launch x_train_network.py; fi\n", "has no"),
        (b"echo 'accelerate launch x_train_network.py'\n", "has no"),
        (b'eval "accelerate launch x_train_network.py"\n', "has no"),
        (b"bash -c 'accelerate launch x_train_network.py'\n", "has no"),
        (b"python tool.py x_train_network.py\n", "has no"),
        (b"ls sd-scripts/flux_train_network.py\n", "has no"),
        (b"accelerate launch a_train_network.py\n\naccelerate launch b_train_network.py\n", "lines 1, 3"),
        (b"cat <<END\naccelerate launch x_train_network.py\nEND\n", "line 1: here-documents are not understood"),
        (b"\naccelerate launch x_train_network.py <<-END\nEND\n", "line 2: here-documents"),
        (b"accelerate launch x_train_network.py\necho 'open\n", "line 2: ' is not closed"),
        (b'\n\naccelerate launch x_train_network.py --a "open\n\n', 'line 3: " is not closed'),
        (b"accelerate launch x_train_network.py --a $(open\n", "line 1: $ is not closed"),
        (b"accelerate launch x_train_network.py --a ${open\n", "line 1: $ is not closed"),
        (b"accelerate launch x_train_network.py --a `open\n", "line 1: ` is not closed"),
        (
            b"accelerate launch \\\r\n  x_train_network.py \\\r\n  --a b\r\n",
            "line 1: ends as Windows ends lines (CRLF)",
        ),
    ],
)
def test_a_script_that_is_not_understood_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(ScriptError, match=re.escape(said)):
        script.read(content)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(noise: bytes) -> None:
    for batch in (False, True):
        for content in (noise, b"accelerate launch x_train_network.py " + noise):
            try:
                found = script.read(content, batch=batch)
            except ScriptError:
                continue
            inserted(content, script.with_options(found, ["--save_state"]))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("--output_dir out", "out"),
        ("--output_dir=out", "out"),
        ("--output_dir 'a b'", "a b"),
        ('--output_dir "a \\"b\\" \\$c"', 'a "b" $c'),
        ("--output_dir a\\ b", "a b"),
        ("--output_dir out\\\nput", "output"),
        ("--output_dir first --output_dir=last", "last"),
        ("--output_dir --other", ""),
        ("--output_dir", ""),
        ("--output_dir_x out", None),
        ("--other --output_dir.x", None),
        ("--output_dir 猫", "猫"),
        ("--output_dir $HOME/x", "$HOME/x"),
    ],
)
def test_an_option_is_what_the_trainer_will_see(text: str, value: str | None) -> None:
    found = script.read(f"export A=1\naccelerate launch --output_dir no {TRAINER} {text}\n".encode())
    assert found.arguments[0] == TRAINER
    assert found.option("--output_dir") == value


# train.bat: nothing here can run it

BATCH = (
    b"@echo off\r\n"
    b"rem accelerate launch old_train_network.py & accelerate launch x_train_network.py\r\n"
    b":: accelerate launch old_train_network.py\r\n"
    b'cd /d "%~dp0"\r\n'
    b"accelerate launch ^\r\n"
    b"  --mixed_precision bf16 ^\r\n"
    b'  "C:\\my files (x86)\\flux_train_network.py" ^\r\n'
    b'  --output_dir "C:\\out^puts & more" ^\r\n'
    b"  --output_name ca^&t ^\r\n"
    b"  --seed %SEED% ^\r\n"
    b"  --loss_type l2"
)
BATCH_ADDED = ["--save_state", "--resume", "C:\\my states\\50%-state"]
BATCH_TEXT = b' --save_state --resume "C:\\my states\\50%%-state"'


def batch_edited(content: bytes) -> bytes:
    return script.with_options(script.read(content, batch=True), BATCH_ADDED)


@pytest.mark.parametrize(
    "after",
    [
        b"",
        b" ^\r\n",
        b" ^",
        b"\r\npause\r\n",
        b" > out.txt 2>&1\r\n",
        b" 2> err.txt",
        b" && echo done",
        b"& pause",
        b" | more",
    ],
)
def test_a_batch_file_is_extended_behind_its_last_word(after: bytes) -> None:
    assert batch_edited(BATCH + after) == BATCH + BATCH_TEXT + after


def test_a_batch_file_s_options_are_read() -> None:
    found = script.read(BATCH, batch=True)
    assert found.option("--output_dir") == "C:\\out^puts & more"
    assert found.option("--output_name") == "ca&t"
    assert found.option("--seed") == "%SEED%"
    assert found.option("--loss_type") == "l2"


@pytest.mark.parametrize(
    "command",
    [
        b"accelerate launch x_train_network.py --a b",
        b"@accelerate launch x_train_network.py --a b",
        b"call env\\Scripts\\accelerate.exe launch x_train_network.py --a b",
        b'"C:\\py thon\\python.exe" -m accelerate.commands.launch x_train_network.py',
        b"py -3 x_train_network.py",
        "accelerate launch x_train_network.py --output_name à".encode(),
        b"( accelerate launch x_train_network.py --a b",
    ],
)
def test_ways_to_start_a_training_in_a_batch_file(command: bytes) -> None:
    assert batch_edited(b"set A=1\r\n" + command + b"\r\n") == b"set A=1\r\n" + command + BATCH_TEXT + b"\r\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"rem accelerate launch x_train_network.py", "has no"),
        (b"@REM accelerate launch x_train_network.py\r\n", "has no"),
        (b"echo accelerate launch x_train_network.py\r\n", "has no"),
        (b"accelerate launch\r\nx_train_network.py\r\n", "has no"),
        (b"accelerate launch a_train_network.py\r\naccelerate launch b_train_network.py", "lines 1, 2"),
    ],
)
def test_a_batch_file_that_is_not_understood_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(ScriptError, match=said):
        script.read(content, batch=True)
