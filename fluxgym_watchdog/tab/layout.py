"""The tab's components and what happens to them; everything else is in the modules beside it.

Only what is the same on Gradio 4.44.1, 5.50 and 6 is used. There is no gr.Timer: on 4 and 5 it ticks for pages that
have never shown the tab. The page's script clicks a hidden button instead, and only while the tab is shown.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from fluxgym_watchdog.tab.board import PARTS, SPANS, Board, Sent, news
from fluxgym_watchdog.tab.css import CSS
from fluxgym_watchdog.tab.script import CHOSEN_CHECKPOINT, PAGE_SCRIPT

_QUIET: dict[str, Any] = {"api_name": False, "show_progress": "hidden"}
"""No handler is an open endpoint, and none covers the page with a spinner."""


def lay_out(board: Board, root_block: Any) -> None:
    """Adds the tab to the surrounding gr.Tabs, and the page's script to what the page does when it has loaded."""
    with gr.TabItem("Watchdog", elem_id="watchdog-tab"):
        with gr.Row(elem_id="watchdog-controls"):
            picker = gr.Dropdown(choices=[], value=None, label="Run", elem_id="watchdog-run", scale=3, min_width=200)
            switch = gr.Checkbox(
                value=True, label="Auto-resume", elem_id="watchdog-auto-resume", interactive=True, min_width=150
            )
            stop = gr.Button("Stop", elem_id="watchdog-stop", interactive=False, scale=0, min_width=110)
            resume = gr.Button("Resume", elem_id="watchdog-resume", interactive=False, scale=0, min_width=110)
        parts = {"card": _part("card")}
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
        parts |= {"log": _part("log"), "host": _part("host")}
        with gr.Row(elem_classes="wd-hidden"):
            look = gr.Button("Look", elem_id="watchdog-look")
            back = gr.Button("Resume from the chosen checkpoint", elem_id="watchdog-resume-from")
            checkpoint = gr.Textbox(label="Chosen checkpoint", elem_id="watchdog-chosen")
            sent = gr.State({})
        gr.HTML(f"<style>{CSS}</style>", elem_classes="wd-hidden")

    def see(picked: str | None, shown_span: str, before: Sent) -> tuple[Any, ...]:
        by_user = bool(picked) and (picked != before.get("run") or "picked" in before)
        show = board.show(picked or None, shown_span, follow=not by_user)
        changed, after = news(show, before)
        if by_user:
            after["picked"] = "yes"
        updates = {
            "picker": gr.update(choices=list(show.names), value=show.name),
            "auto_resume": gr.update(value=show.auto_resume, interactive=show.may_switch),
            "stop": gr.update(interactive=show.may_stop, variant="stop" if show.may_stop else "secondary"),
            "resume": gr.update(interactive=show.may_resume, variant="primary" if show.may_resume else "secondary"),
            **show.parts,
        }
        sending = [updates[name] if name in changed else gr.skip() for name in (*_CONTROLS, *PARTS)]
        return (*sending, after)

    def ask_switch(picked: str | None, wanted: bool) -> Any:
        problem = board.ask(picked, "switch", auto_resume=bool(wanted))
        _say(problem)
        return gr.update(value=not wanted) if problem else gr.skip()

    def ask_stop(picked: str | None) -> None:
        _say(board.ask(picked, "stop"), "Asked to stop.")

    def ask_resume(picked: str | None) -> None:
        _say(board.ask(picked, "resume"), "Asked to resume.")

    def ask_resume_from(picked: str | None, chosen: str) -> None:
        _say(board.ask(picked, "resume", checkpoint=str(chosen)), "Asked to resume from the chosen state.")

    gr.on(
        [look.click, picker.input, span.input],
        see,
        [picker, span, sent],
        [picker, switch, stop, resume, *(parts[part] for part in PARTS), sent],
        trigger_mode="always_last",
        **_QUIET,
    )
    switch.input(ask_switch, [picker, switch], [switch], **_QUIET)
    stop.click(ask_stop, [picker], None, **_QUIET)
    resume.click(ask_resume, [picker], None, **_QUIET)
    back.click(ask_resume_from, [picker, checkpoint], None, js=CHOSEN_CHECKPOINT, **_QUIET)
    root_block.load(None, None, None, js=PAGE_SCRIPT, **_QUIET)


_CONTROLS = ("picker", "auto_resume", "stop", "resume")


def _part(name: str) -> Any:
    waiting = '<section class="wd wd-box"><p class="wd-empty">Looking …</p></section>' if name == "card" else ""
    return gr.HTML(waiting, elem_id=f"watchdog-{name}")


def _say(problem: str, done: str = "") -> None:
    if problem:
        gr.Warning(problem)
    elif done:
        gr.Info(done)
