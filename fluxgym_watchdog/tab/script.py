"""The page's script, kept in page.js. Scripts inside gr.HTML do not run, so it is the `js` of a load event, on every
Gradio."""

from __future__ import annotations

from pathlib import Path

from fluxgym_watchdog.tab.plots import LETTERS

PAGE_SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8").replace("__LETTERS__", LETTERS)

WISH = "(run, _) => [run, window.fluxgymWatchdog && window.fluxgymWatchdog.wishes.shift() || '']"
"""Puts what a button in the page asks for in the place of the hidden text box; of several the next one."""
