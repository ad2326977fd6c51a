"""The Gradio tab. It reads what the store holds and leaves requests there; it never touches a process."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from gradio.context import Context

from fluxgym_watchdog.fluxgym.runs import find_runs
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.tab.board import Board
from fluxgym_watchdog.tab.layout import lay_out


def build(
    root: Path,
    outputs: Path,
    settings: Settings,
    problem: Callable[[], str] = lambda: "",
    use: Callable[[Settings], None] = lambda settings: None,
) -> None:
    """Adds the tab "Watchdog"; to be called inside the `with gr.Tabs():` of FluxGym's page.

    `root` is the FluxGym folder, `outputs` the folder with its runs; `problem` says what is wrong with the watchdog
    itself, or nothing; `use` is given settings that were changed in the page. Whatever is raised halfway, the page is
    left as it was before: without the tab, and working.
    """
    blocks, parent = Context.root_block, Context.block
    if blocks is None or parent is None:
        raise RuntimeError(f"the Watchdog tab for {root} must be built inside the gr.Tabs() of a gr.Blocks()")
    config = blocks.default_config
    children, known_blocks, known_events = list(parent.children), set(config.blocks), set(config.fns)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*api_name=False.*")  # 5.50 announces its end; 6 still takes it
            lay_out(Board(outputs, settings, find_runs, problem=problem, root=root, use=use), blocks)
    except BaseException:
        parent.children[:] = children
        for number in set(config.blocks) - known_blocks:
            del config.blocks[number]
        for number in set(config.fns) - known_events:
            del config.fns[number]
        raise
