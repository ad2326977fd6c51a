"""Small app.py files of our own, one for every class that FluxGym and its forks show."""

from __future__ import annotations

PLAIN = """\
import os
import sys
sys.path.insert(0, os.getcwd())
import gradio as gr
from gradio_logsview import LogsView, LogsViewRunner
import json

def start_training():
    runner = LogsViewRunner()
    yield from runner.run_command(["bash train.sh"], cwd=".")

with gr.Blocks(elem_id="app") as demo:
    with gr.Tabs() as tabs:
        with gr.TabItem("Gym"):
            start = gr.Button("Start")
        with gr.TabItem("Publish") as publish_tab:
            gr.Markdown("upload")
    refresh = gr.Button("refresh")

if __name__ == "__main__":
    print("READY", LogsViewRunner.__name__, json.dumps(gr.PAGE))
"""

IMPORT = "from gradio_logsview import LogsView, LogsViewRunner\n"
TABS = PLAIN[PLAIN.index("    with gr.Tabs()") : PLAIN.index("    refresh =")]
ENDS_IN_TABS = PLAIN[: PLAIN.index("    refresh =")]


def _with_import(text: str) -> str:
    return PLAIN.replace(IMPORT, text)


def _with_tabs(text: str) -> str:
    return PLAIN.replace(TABS, text)


def _encoded(files: dict[str, str | bytes]) -> dict[str, bytes]:
    return {name: text if isinstance(text, bytes) else text.encode() for name, text in files.items()}


PATCHABLE = _encoded({
    "plain": PLAIN,
    "BOM": b"\xef\xbb\xbf" + PLAIN.encode(),
    "CRLF": PLAIN.replace("\n", "\r\n"),
    "CRLF and BOM": b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode(),
    "lone CR": PLAIN.replace("\n", "\r"),
    "mixed line endings": PLAIN.replace("\n", "\r\n", 9),
    "tabs": PLAIN.replace("    ", "\t"),
    "two spaces": PLAIN.replace("    ", "  "),
    "no final newline": PLAIN.removesuffix("\n"),
    "ends in Tabs": ENDS_IN_TABS,
    "ends in Tabs, no final newline": ENDS_IN_TABS.removesuffix("\n"),
    "ends in Tabs, no final newline, CRLF": ENDS_IN_TABS.removesuffix("\n").replace("\n", "\r\n"),
    "ends in Tabs, spaces after it": ENDS_IN_TABS + "        \n    ",
    "ends in Tabs, comment after it": ENDS_IN_TABS + "    # the end",
    "non-ASCII last line": PLAIN.replace('gr.Markdown("upload")', 'gr.Markdown("上传 📤 ü")'),
    "non-ASCII last line, no final newline": ENDS_IN_TABS.replace('"upload")\n', '"上传 📤")'),
    "non-ASCII statement before on the same line": _with_import('é = "上传"; ' + IMPORT),
    "latin-1": ("# -*- coding: latin-1 -*-\n" + PLAIN.replace("upload", "für")).encode("latin-1"),
    "import under another name": _with_import(IMPORT.rstrip() + " as Läufer\n")
    .replace("LogsViewRunner()", "Läufer()").replace("LogsViewRunner.__", "Läufer.__"),
    "import in parentheses": _with_import(
        "from gradio_logsview import (\n    LogsView,\n    LogsViewRunner,  # runs\n)\n"),
    "import with a backslash": _with_import("from gradio_logsview import LogsView, \\\n    LogsViewRunner\n"),
    "import inside try": _with_import("try:\n    " + IMPORT + "except ImportError:\n    raise SystemExit(3)\n"),
    "import inside if": _with_import("if sys:\n\t" + IMPORT),
    "import with a comment": _with_import(IMPORT.rstrip() + "  # the log view\n"),
    "import followed by a statement": _with_import(IMPORT.rstrip() + "; import re\n"),
    "import followed by a longer statement": _with_import(IMPORT.rstrip() + "; x = [\n    1,\n]; y = 2\n"),
    "import continued by a backslash": _with_import(IMPORT.rstrip() + "; \\\nimport re\n"),
    "import of everything": _with_import("from gradio_logsview import *\n"),
    "import first in the file": IMPORT + PLAIN.replace(IMPORT, ""),
    "import from a copy of the package": "import gradio_logsview.sub\n" + _with_import(
        "from gradio_logsview.sub import LogsView, LogsViewRunner\n"),
    "Tabs without a name": PLAIN.replace(" as tabs:", ":"),
    "Tabs in the same with": _with_tabs("    pass\n").replace("as demo:\n    pass\n", "as demo, gr.Tabs() as tabs:\n")
    .replace("    refresh", '    with gr.TabItem("Gym"):\n        start = gr.Button("Start")\n    refresh'),
    "Tabs with arguments": PLAIN.replace("gr.Tabs()", "gr.Tabs(\n        elem_id='tabs',\n    )"),
    "gradio by its own name": PLAIN.replace("gradio as gr", "gradio").replace("gr.", "gradio."),
    "Tabs by name": PLAIN.replace("gr.Tabs()", "Tabs()").replace("as gr\n", "as gr\nfrom gradio import Tabs\n"),
    "nested Tabs": PLAIN.replace(
        'gr.Markdown("upload")',
        'with gr.Tabs():\n                with gr.TabItem("inner"):\n                    pass'),
    "last child is no TabItem": PLAIN.replace("    refresh", "        hidden = gr.Button('hidden')\n    refresh"),
    "last child is decorated": PLAIN.replace(
        "    refresh", "        @staticmethod\n        def f(): pass\n    refresh"),
    "last line shared by two": PLAIN.replace('gr.Markdown("upload")', 'gr.Markdown("upload"); x = 1'),
    "last child is a string over lines": PLAIN.replace('"upload"', '"""up\nload\n # >>> no marker >>>"""'),
    "Tabs inside a function": PLAIN.replace("with gr.Blocks", "def build():\n  with gr.Blocks", 1)
    .replace("\n    with gr.Tabs", "\n    with gr.Tabs").replace("\n\nif __name__", "\nbuild()\n\nif __name__"),
    "form feeds": PLAIN.replace("\ndef ", "\n\f\ndef ").replace("\nimport json", "\n\x0cimport json"),
})  # fmt: skip

_ONE_LINE_TABS = '    with gr.Tabs() as tabs: gr.TabItem("Gym")\n'
_NO_IMPORT = "no `from gradio_logsview import LogsViewRunner`"
REFUSED = {
    name: (text.encode(), reason)
    for name, (text, reason) in {
        "empty": ("", _NO_IMPORT),
        "neither": (_with_tabs("    pass\n").replace(IMPORT, ""), f"{_NO_IMPORT}; app.py has no `with gr.Tabs():`"),
        "two imports": (_with_import(IMPORT + IMPORT), "2 times (lines 5, 6)"),
        "import on the line of its try": (_with_import(f"try: {IMPORT}except ImportError: pass\n"), "on the same line"),
        "import below its try's backslash": (
            _with_import(f"try: \\\n    {IMPORT}except ImportError: pass\n"),
            "on the same line as the statement around it",
        ),
        "two Tabs": (_with_tabs(TABS + TABS), "but 2 (lines 13, 18)"),
        "Tabs on one line": (_with_tabs(_ONE_LINE_TABS), "on the same line"),
        "Tabs that end in raise": (_with_tabs(TABS + "        raise SystemExit\n"), "never be reached"),
        "not Python": (PLAIN + "def (:\n", "not valid Python"),
        "null byte": (PLAIN + "\0\n", "not valid Python"),
        "half a block": (PLAIN + "# >>> fluxgym-watchdog: tab >>>\n", "line 22: a fluxgym-watchdog marker"),
        "only a block's end": (PLAIN + "# <<< fluxgym-watchdog: tab <<<\n", "line 22: a fluxgym-watchdog marker"),
        "blocks in each other": (
            PLAIN + "# >>> fluxgym-watchdog: tab >>>\n# <<< fluxgym-watchdog: supervise <<<\n",
            "line 22: a fluxgym-watchdog marker",
        ),
    }.items()
}

# What a fork without one of the two can be given, and what it is told.
PARTIAL = {
    name: (text.encode(), block, told)
    for name, (text, block, told) in {
        "no LogsViewRunner": (_with_import("LogsViewRunner = str\n"), "tab", _NO_IMPORT),
        "module import": (
            _with_import("import gradio_logsview\nLogsViewRunner = str\n"),
            "tab",
            "imports the module gradio_logsview as a whole",
        ),
        "no Tabs": (_with_tabs("    pass\n"), "supervise", "no `with gr.Tabs():`, so there is no tab"),
        "another library's Tabs": (
            PLAIN.replace("gr.Tabs()", "st.Tabs()").replace("as gr\n", "as gr\nst = gr\n"),
            "supervise",
            "no `with gr.Tabs():`",
        ),
    }.items()
}

# A stand-in for gradio that keeps the order in which a page is built.
GRADIO = """\
PAGE = []
class Block:
    def __init__(self, *args, **kwargs):
        self.args = args
    def __enter__(self):
        PAGE.append(type(self).__name__)
        return self
    def __exit__(self, *exc):
        PAGE.append("/" + type(self).__name__)
class Blocks(Block): ...
class Tabs(Block): ...
class TabItem(Block): ...
def Button(*args, **kwargs): return args
Markdown = Button
"""
