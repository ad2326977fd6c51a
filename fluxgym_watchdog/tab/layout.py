"""The tab's components and what happens to them; everything else is in the modules beside it.

Only what is the same on Gradio 4.44.1, 5.50 and 6 is used. There is no gr.Timer: on 4 and 5 it ticks for pages that
have never shown the tab. The page's script clicks a hidden button instead, and only while the tab is shown.
"""

from __future__ import annotations

import base64
import itertools
import json
import time
from typing import Any

import gradio as gr

from fluxgym_watchdog.tab.board import SPANS, Board, Sent, news
from fluxgym_watchdog.tab.css import CSS
from fluxgym_watchdog.tab.requests import Answer
from fluxgym_watchdog.tab.script import PAGE_SCRIPT, WISH
from fluxgym_watchdog.tab.show import PARTS
from fluxgym_watchdog.tab.words import escape, sendable

_QUIET: dict[str, Any] = {"api_name": False, "show_progress": "hidden"}
"""No handler is an open endpoint, and none covers the page with a spinner."""


def lay_out(board: Board, root_block: Any) -> None:
    """Adds the tab to the surrounding gr.Tabs, and the page's script to what the page does when it has loaded."""
    with gr.TabItem("Watchdog", elem_id="watchdog-tab"):
        with gr.Row(elem_id="watchdog-controls"):
            # Any value is allowed: a page that outlives its server sends the name of a run that this one has not
            # listed for it yet, and must not be turned away. The board looks it up.
            picker = gr.Dropdown(
                choices=[],
                value=None,
                label="Run",
                elem_id="watchdog-run",
                allow_custom_value=True,
                scale=3,
                min_width=200,
            )
            switch = gr.Checkbox(
                value=True, label="Auto-resume", elem_id="watchdog-auto-resume", interactive=True, min_width=150
            )
            stop = gr.Button("Stop", elem_id="watchdog-stop", interactive=False, scale=0, min_width=110)
            resume = gr.Button("Resume", elem_id="watchdog-resume", interactive=False, scale=0, min_width=110)
        parts = {"card": _part("card")}
        with gr.Row(elem_id="watchdog-plot-controls"):
            log_scale = gr.Checkbox(
                value=False,
                label="Loss on a log scale",
                elem_id="watchdog-log-scale",
                container=False,
                interactive=True,
                min_width=150,
            )
            span = gr.Radio(
                choices=list(SPANS),
                value=next(iter(SPANS)),
                label="Range of the plots",
                show_label=False,
                container=False,
                elem_id="watchdog-range",
            )
        parts |= {"gpu": _part("gpu"), "training": _part("training")}
        with gr.Row(elem_classes="wd-two"):
            with gr.Column(scale=4, min_width=300):
                parts["timeline"] = _part("timeline")
            with gr.Column(scale=5, min_width=300):
                parts["checkpoints"] = _part("checkpoints")
        with gr.Column(elem_classes="wd-joined"):
            parts |= {"log": _part("log"), "log_now": _part("log-now")}
        parts |= {"settings": _part("settings"), "host": _part("host")}
        with gr.Row(elem_classes="wd-hidden"):
            look = gr.Button("Look", elem_id="watchdog-look")
            do = gr.Button("Do what was asked for", elem_id="watchdog-do")
            wish = gr.Textbox(label="What was asked for", elem_id="watchdog-wish")
            answered = gr.HTML("", elem_id="watchdog-answer")
            alive = gr.HTML("", elem_id="watchdog-alive")
            sent = gr.State({})
        gr.HTML(f"<style>{CSS}</style>", elem_classes="wd-hidden")

    def see(picked: str | None, shown_span: str, on_log_scale: bool, switched: bool, before: Sent) -> tuple[Any, ...]:
        # A page that outlives its server says nothing of what it was sent: that names a run is no pick.
        by_user = "picked" in before or bool(picked and before.get("run") and picked != before["run"])
        show = board.show(picked or None, shown_span, follow=not by_user, log_scale=bool(on_log_scale))
        changed, after = news(show, before)
        if by_user:
            after["picked"] = "yes"
        if bool(switched) is show.auto_resume or "auto_resume" in changed:
            after.pop("switch differs", None)
        elif "switch differs" in before:
            changed.add("auto_resume")  # what its user asked for never arrived: the switch must not go on showing it
        else:
            after["switch differs"] = "yes"  # it may be on its way
        if picked and picked != show.name:
            changed.add("picker")  # or the box would go on naming another run than the one that is shown
        updates = {
            "picker": gr.update(choices=list(show.names), value=show.name),
            "auto_resume": gr.update(value=show.auto_resume, interactive=show.may_switch),
            "stop": gr.update(interactive=show.may_stop, variant="stop" if show.may_stop else "secondary"),
            "resume": gr.update(interactive=show.may_resume, variant="primary" if show.may_resume else "secondary"),
            **{name: part.html for name, part in show.parts.items()},
        }
        sending = [updates[name] if name in changed else gr.skip() for name in (*_CONTROLS, *PARTS)]
        return (*sending, f"<i data-answered='{time.time():.3f}'></i>", after)

    def ask_switch(picked: str | None, wanted: bool) -> Any:
        answer = board.ask(picked, "switch", bool(wanted))
        _say(answer)
        return gr.update(value=not wanted) if answer.problem else gr.skip()

    def ask_stop(picked: str | None) -> None:
        _say(board.ask(picked, "stop"))

    def ask_resume(picked: str | None) -> None:
        _say(board.ask(picked, "resume"))

    def ask_what_was_chosen(picked: str | None, wished: str) -> str:
        kind, value = _wish(wished)
        answer = board.change_settings(value) if kind == "settings" else board.ask(picked, kind, value)
        _say(answer)
        return _answer(kind, answer)

    gr.on(
        [look.click, picker.input, span.input, log_scale.input],
        see,
        [picker, span, log_scale, switch, sent],
        [picker, switch, stop, resume, *(parts[part] for part in PARTS), alive, sent],
        trigger_mode="always_last",  # one after the other: each knows what the last one has sent
        concurrency_limit=LOOKS_AT_ONCE,
        **_QUIET,
    )
    switch.input(ask_switch, [picker, switch], [switch], trigger_mode="always_last", **_QUIET)
    stop.click(ask_stop, [picker], None, **_QUIET)
    resume.click(ask_resume, [picker], None, **_QUIET)
    do.click(ask_what_was_chosen, [picker, wish], [answered], js=WISH, trigger_mode="multiple", **_QUIET)
    root_block.load(None, None, None, js=PAGE_SCRIPT, **_QUIET)


LOOKS_AT_ONCE = 4
"""So many pages are answered at a time: one whose run lies on a disk that hangs must not keep the others waiting."""

_CONTROLS = ("picker", "auto_resume", "stop", "resume")
_numbers = itertools.count(1)
"""Each answer has a number of its own: the same answer twice is two answers."""


def _part(name: str) -> Any:
    waiting = "<section class='wd wd-box'><p class='wd-empty'>Looking …</p></section>" if name == "card" else ""
    return gr.HTML(waiting, elem_id=f"watchdog-{name}")


def _wish(wished: str) -> tuple[str, object]:
    """What the page's script asks for: a word, and a value to compare with what there is."""
    try:
        kind, value = json.loads(wished)
    except (TypeError, ValueError, RecursionError):
        return "", None
    return str(kind), value


def _answer(kind: str, answer: Answer) -> str:
    """The answer in a form that the page's script takes up; a file is saved by the browser, and never lies here."""
    told = {"kind": kind, "problem": answer.problem, "name": answer.file_name}
    told["file"] = base64.b64encode(answer.file).decode("ascii")
    return f"<i data-number='{next(_numbers)}' data-answer='{escape(json.dumps(told))}'></i>"


def _say(answer: Answer) -> None:
    if answer.problem:
        gr.Warning(escape(sendable(answer.problem)))  # Gradio takes it for HTML, and it may name a hostile run
    elif answer.done:
        gr.Info(answer.done)
