"""patch() and unpatch(): bytes in, bytes out."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from types import ModuleType

import app_files
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PATCHABLE = pytest.mark.parametrize("source", app_files.PATCHABLE.values(), ids=app_files.PATCHABLE)
SUPERVISE, TAB = b"# >>> fluxgym-watchdog: supervise", b"# >>> fluxgym-watchdog: tab"
PROPERTY = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=300)


@PATCHABLE
def test_every_class_of_app_is_patched_once_and_reverts_to_the_byte(installer: ModuleType, source: bytes) -> None:
    patched = installer.patch(source)
    assert patched.count(SUPERVISE) == patched.count(TAB) == 1
    assert installer.patch(patched) == patched
    assert installer.unpatch(patched) == source
    assert installer.unpatch(source) == source
    compile(patched, "app.py", "exec")


@PATCHABLE
def test_the_tab_is_the_last_child_of_the_outermost_tabs(installer: ModuleType, source: bytes) -> None:
    tree = ast.parse(installer.patch(source))
    holders = [node for node in ast.walk(tree) if isinstance(node, ast.With) and "mount" in ast.dump(node.body[-1])]
    outermost = min(holders, key=lambda node: len(ast.dump(node)))
    assert any("Tabs" in ast.dump(item) for item in outermost.items)
    assert isinstance(outermost.body[-1], ast.Try)


@pytest.mark.parametrize("name", ["CRLF", "lone CR", "ends in Tabs, no final newline, CRLF"])
def test_inserted_lines_end_as_the_lines_around_them(installer: ModuleType, name: str) -> None:
    ending = "\r" if name == "lone CR" else "\r\n"
    patched = installer.patch(app_files.PATCHABLE[name]).decode()
    assert set(re.findall(r"\r\n|\r|\n", patched)) == {ending}


def test_tabs_stay_tabs(installer: ModuleType) -> None:
    assert b"\t\t" + TAB in installer.patch(app_files.PATCHABLE["tabs"])


def test_a_missing_final_newline_stays_missing_and_is_recorded(installer: ModuleType) -> None:
    patched = installer.patch(app_files.PATCHABLE["ends in Tabs, no final newline"])
    assert TAB + b" (newline added) >>>" in patched
    assert patched.endswith(b"<<<\n")  # or a line that somebody adds would be part of the marker


@pytest.mark.parametrize(("source", "reason"), app_files.REFUSED.values(), ids=app_files.REFUSED)
def test_what_cannot_be_patched_is_refused_with_the_reason(installer: ModuleType, source: bytes, reason: str) -> None:
    with pytest.raises(installer.RefusedError, match=re.escape(reason)):
        installer.patch(source)


def test_the_snippet_to_insert_by_hand_is_the_one_whose_anchor_is_missing(installer: ModuleType) -> None:
    with pytest.raises(installer.RefusedError) as refused:
        installer.patch(app_files.REFUSED["two Tabs"][0])
    (by_hand,) = refused.value.by_hand
    assert by_hand.startswith("# >>> fluxgym-watchdog: tab >>>")
    assert "python -m fluxgym_watchdog watch" in str(refused.value)


@pytest.mark.parametrize("name", ["plain", "CRLF", "ends in Tabs, no final newline", "import inside try"])
def test_edits_elsewhere_survive_unpatching(installer: ModuleType, name: str) -> None:
    source = app_files.PATCHABLE[name]
    edited = b"# mine\n" + installer.patch(source).replace(b'"Start"', b'"Go"') + b"# also mine"
    ending = b"\r\n" if b"\r" in source else b"\n"
    whole = source if source.endswith(b"\n") else source + ending
    assert installer.unpatch(edited) == b"# mine\n" + whole.replace(b'"Start"', b'"Go"') + b"# also mine"


def test_blocks_whose_line_endings_an_editor_changed_are_still_taken_out(installer: ModuleType) -> None:
    patched = installer.patch(app_files.PATCHABLE["ends in Tabs, no final newline"])
    expected = app_files.PATCHABLE["ends in Tabs, no final newline, CRLF"]
    assert installer.unpatch(patched.replace(b"\n", b"\r\n")) == expected


def test_blocks_of_another_version_are_renewed_and_a_lost_one_put_back(installer: ModuleType) -> None:
    source = app_files.PATCHABLE["plain"]
    patched = installer.patch(source)
    older = reworded(installer, patched)
    assert older != patched
    assert installer.patch(older) == patched
    only_first = patched[: patched.index(b"        " + TAB)] + patched[patched.index(b"    refresh") :]
    assert installer.patch(only_first) == patched


def test_what_changes_more_than_it_should_is_refused(installer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = installer._frame
    monkeypatch.setattr(
        installer,
        "_frame",
        lambda *given, indent, added: [indent + b"import this", *frame(*given, indent=indent, added=added)],
    )
    with pytest.raises(installer.RefusedError, match="would change more than they should"):
        installer.patch(app_files.PATCHABLE["plain"])


def test_a_tree_as_deep_as_its_elifs_is_patched(installer: ModuleType, tmp_path: Path) -> None:
    chain = "if debug == 0:\n    pass\n" + "".join(f"elif debug == {n}:\n    pass\n" for n in range(1, 300))
    app = tmp_path / "app.py"
    app.write_text(app_files.PLAIN + "debug = 1\n" + chain)
    before = app.read_bytes()
    assert installer.main([str(tmp_path), "--yes", "--no-packages"]) == 0
    assert installer.main([str(tmp_path), "--uninstall", "--yes"]) == 0
    assert app.read_bytes() == before


@pytest.mark.parametrize("name", ["more inside", "continued"])
def test_tabs_that_hold_no_place_of_their_own_are_refused(installer: ModuleType, name: str) -> None:
    tabs = {"more inside": "with gr.Tabs(), gr.Tab():\n    pass\n", "continued": "with gr.Tabs(): \\\n    pass\n"}[name]
    with pytest.raises(installer.RefusedError):
        installer.patch(f"import gradio as gr\nfrom gradio_logsview import LogsViewRunner\n{tabs}".encode())


def test_a_block_that_this_version_does_not_know_goes_out(installer: ModuleType) -> None:
    source = app_files.PATCHABLE["plain"]
    other = b"# >>> fluxgym-watchdog: other >>>\n# <<< fluxgym-watchdog: other <<<\n"
    assert installer.patch(source + other) == installer.patch(source)


def reworded(installer: ModuleType, patched: bytes) -> bytes:
    """The same blocks as another version writes them: with other words, and the checksum of those."""
    texts = {block: installer.snippet(block).replace("Watchdog", "Dog") for block in ("supervise", "tab")}
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(installer, "snippet", texts.__getitem__)
        return installer.patch(installer.unpatch(patched))


def test_a_block_that_somebody_edited_is_left_alone_unless_repaired(installer: ModuleType) -> None:
    source = app_files.PATCHABLE["plain"]
    patched = installer.patch(source)
    edited = patched.replace(b"    from pathlib", b"    my_own = 1\n    from pathlib")
    for act in (installer.patch, installer.unpatch):
        with pytest.raises(
            installer.RefusedError, match=r"app\.py line 29: the fluxgym-watchdog block 'tab' was edited"
        ):
            act(edited)
    assert installer.patch(edited, edited_too=True) == patched
    assert installer.unpatch(edited, edited_too=True) == source


def test_a_formatter_that_only_indents_anew_has_edited_nothing(installer: ModuleType) -> None:
    patched = installer.patch(app_files.PATCHABLE["plain"])
    indented = patched.replace(b"    ", b"\t").replace(b"\n\n", b"\n")
    assert installer.unpatch(indented) == app_files.PATCHABLE["tabs"].replace(b"\n\n", b"\n")


@pytest.mark.parametrize(("source", "block", "told"), app_files.PARTIAL.values(), ids=app_files.PARTIAL)
def test_a_fork_without_one_of_the_two_gets_the_other(
    installer: ModuleType, source: bytes, block: str, told: str
) -> None:
    patched = installer.patch(source)
    assert re.findall(rb"# >>> fluxgym-watchdog: (\w+)", patched) == [block.encode()]
    assert installer.unpatch(patched) == source
    assert installer.patch(patched) == patched
    (note,) = installer._find_anchors(source)[1]
    assert told in note


def test_a_lost_end_is_looked_for_where_the_block_begins(installer: ModuleType) -> None:
    lines = installer.patch(app_files.PATCHABLE["plain"]).splitlines(keepends=True)
    lines = [line for line in lines if b"<<< fluxgym-watchdog: supervise" not in line]
    with pytest.raises(installer.RefusedError, match=r"app\.py line 6: a fluxgym-watchdog marker"):
        installer.unpatch(b"".join(lines))


def test_the_import_moved_into_tabs_at_the_very_end(installer: ModuleType) -> None:
    source = b"import gradio as gr\nwith gr.Tabs():\n    from gradio_logsview import LogsViewRunner"
    patched = installer.patch(source)
    assert patched.index(SUPERVISE) < patched.index(TAB)
    assert installer.unpatch(patched) == source


def test_the_real_app(installer: ModuleType) -> None:
    path = os.environ.get("FLUXGYM_APP")
    if not path:
        pytest.skip("FLUXGYM_APP is not set to a FluxGym app.py")
    source = Path(path).read_bytes()
    patched = installer.patch(source)
    assert installer.unpatch(patched) == source
    assert installer.patch(patched) == patched
    assert patched.count(SUPERVISE) == patched.count(TAB) == 1


# Generated files


LINES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\\\"'\0#"), max_size=20)


@st.composite
def apps(draw: st.DrawFn) -> bytes:
    """Apps put together from forms that each part is seen in, with odd text in strings and comments around them."""
    ending, indent = draw(st.sampled_from(["\n", "\r\n", "\r"])), draw(st.sampled_from(["  ", "    ", "\t", " \t"]))
    text = draw(st.lists(LINES, max_size=4))
    name = draw(st.sampled_from(["LogsViewRunner", "LogsViewRunner as R", "(LogsView,\n    LogsViewRunner)"]))
    imports = f"from gradio_logsview import {name}" + draw(
        st.sampled_from(["", "; x = 1", "  # é", " ;", "; \\\ny = 2"])
    )
    if draw(st.booleans()):
        imports = "try:\n" + indent + imports + "\nexcept ImportError:\n" + indent + "pass"
    last = draw(st.sampled_from(["x = 1", "gr.Markdown('é📤')", "f(\n1\n)", "x = 1; y = '''é\n\n'''", "if x:  y()"]))
    deep = draw(st.integers(0, 2))
    kind = draw(st.sampled_from(["both", "both", "no import", "no Tabs"]))
    if kind == "no import":
        imports = "from gradio_logsview import LogsView"
    page = "".join(f"{indent * level}with gr.Row():\n" for level in range(deep))
    holder = "Group" if kind == "no Tabs" else "Tabs"
    page += (
        f"{indent * deep}with gr.{holder}():\n{indent * (deep + 1)}with gr.TabItem('a'):\n{indent * (deep + 2)}{last}"
    )
    noise = [f"'''{line}'''" for line in text]
    parts = ["import gradio as gr", *noise, imports, *(f"# {line}" for line in text), page]
    tail = draw(st.sampled_from(["", "\n", "\n\n\n", "\n# end", "\n    ", "\nprint()", "\nprint()\n"]))
    result = ("\n".join(parts) + tail).replace("\n", ending).encode()
    return (b"\xef\xbb\xbf" if draw(st.booleans()) else b"") + result


@PROPERTY
@given(source=apps())
def test_any_generated_app_patches_and_reverts(installer: ModuleType, source: bytes) -> None:
    try:
        patched = installer.patch(source)
    except installer.RefusedError as refused:
        assert "valid Python" in str(refused), source  # a control character in the noise
        return
    assert installer.unpatch(patched) == source
    assert installer.patch(patched) == patched
    compile(patched, "app.py", "exec")


PIECES = [*(b"# >>> fluxgym-watchdog: tab >>>", b"# <<< fluxgym-watchdog: tab <<<", b"# <<< fluxgym-watchdog: supervise"
            b" <<<", b" (newline added)", b"\n", b"\r\n", b"\r", b"    "), app_files.PLAIN.encode()]  # fmt: skip


@PROPERTY
@given(source=st.one_of(st.binary(), st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=5))).map(b"".join)))
def test_any_bytes_are_either_refused_or_revert(installer: ModuleType, source: bytes) -> None:
    try:
        bare = installer.unpatch(source)
        patched = installer.patch(source)
    except installer.RefusedError:
        return
    assert installer.unpatch(patched) == bare
    assert installer.patch(patched) == patched


@PROPERTY
@given(
    source=st.one_of(apps(), st.binary(), st.text().map(str.encode)),
    name=st.sampled_from(["app.py", "requirements.txt"]),
)
def test_what_git_writes_and_takes_back_is_what_it_had(installer: ModuleType, source: bytes, name: str) -> None:
    written, _ = installer.filtered("smudge", name, source)
    assert installer.filtered("clean", name, written) == (source, "")
    assert installer.filtered("smudge", name, written)[0] == written
    assert installer.filtered("clean", name, source) == (source, "")


@PROPERTY
@given(source=st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=5))).map(b"".join))
def test_no_bytes_upset_the_filter(installer: ModuleType, source: bytes) -> None:
    for direction in ("clean", "smudge", "what"):
        for name in ("app.py", "requirements.txt", "other"):
            assert isinstance(installer.filtered(direction, name, source)[0], bytes)


@PROPERTY
@given(source=st.one_of(st.none(), st.binary(), st.text().map(str.encode)))
def test_a_block_at_the_end_of_any_file_goes_out_without_a_trace(installer: ModuleType, source: bytes | None) -> None:
    """As in git's files and in requirements.txt."""
    added = installer._add_block(source, "git-config", '[filter "x"]\n\tclean = é', "config")
    assert added.startswith(source or b"")
    assert installer._add_block(added, "git-config", '[filter "x"]\n\tclean = é', "config") == added
    assert installer._without_blocks(added, "config") == source
    assert added.endswith((b"\n", b"\r"))
    own = b"" if not source or source.endswith((b"\n", b"\r")) else installer._line_ending(added)
    later = own + b"[core]\n"  # what others add after us, on a line of its own
    renewed = installer._add_block(added + b"[core]\n", "git-config", "other", "config")
    assert installer._without_blocks(renewed, "config") == (source or b"") + later
