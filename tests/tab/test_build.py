"""build() on the Gradio that is installed: what it adds to a page, and that it leaves nothing when it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from fluxgym_watchdog import tab
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.tab import layout

IDS = {
    "watchdog-tab",
    "watchdog-run",
    "watchdog-card",
    "watchdog-auto-resume",
    "watchdog-stop",
    "watchdog-resume",
    "watchdog-gpu",
    "watchdog-training",
    "watchdog-timeline",
    "watchdog-checkpoints",
    "watchdog-log",
    "watchdog-settings",
    "watchdog-host",
}


class Broken(Exception):
    """What a Gradio of the future might do."""


def page(tmp_path: Path, *, guarded: bool = False) -> gr.Blocks:
    with gr.Blocks() as demo:
        with gr.Tabs():
            with gr.TabItem("Gym"):
                box = gr.Textbox("a", elem_id="gym")
                box.change(lambda text: text, box, box, api_name="echo")
            if guarded:
                with pytest.raises(Broken):
                    tab.build(tmp_path, tmp_path / "outputs", Settings())
            else:
                tab.build(tmp_path, tmp_path / "outputs", Settings())
            with gr.TabItem("Later", elem_id="later"):
                gr.Textbox("b")
        demo.load(lambda: "loaded", None, box, api_name="loaded")
    return demo


def ids(demo: gr.Blocks) -> set[str]:
    return {c["props"].get("elem_id") for c in demo.get_config_file()["components"]} - {None}


def test_every_promised_id_is_there(tmp_path: Path) -> None:
    assert ids(page(tmp_path)) >= IDS


def test_no_handler_is_an_open_endpoint(tmp_path: Path) -> None:
    demo = page(tmp_path)
    assert set(demo.get_api_info()["named_endpoints"]) == {"/echo", "/loaded"}
    assert demo.get_api_info()["unnamed_endpoints"] == {}
    ours = [fn for fn in demo.fns.values() if fn.api_name not in ("echo", "loaded")]
    assert len(ours) == 6
    for fn in ours:
        assert fn.api_name is False or fn.api_visibility == "private"


def test_no_component_of_ours_serves_a_file(tmp_path: Path) -> None:
    """A component that hands out files has an endpoint that is asked for a path."""
    kinds = {component["type"] for component in page(tmp_path).get_config_file()["components"]}
    assert not kinds & {"file", "downloadbutton", "uploadbutton", "fileexplorer", "gallery", "image", "video", "audio"}


def test_building_says_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    with gr.Blocks(), gr.Tabs():
        recwarn.clear()
        tab.build(tmp_path, tmp_path / "outputs", Settings())
        assert [str(w.message) for w in recwarn if "watchdog" in str(w.filename)] == []


def test_outside_a_page_it_says_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"inside the gr\.Tabs"):
        tab.build(tmp_path, tmp_path / "outputs", Settings())


@pytest.mark.parametrize(("place", "calls"), [("Dropdown", 0), ("HTML", 0), ("HTML", 5), ("State", 0), ("on", 0)])
def test_a_failure_halfway_leaves_the_page_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, calls: int
) -> None:
    plain = getattr(gr, place)
    left = [calls]

    class Gradio:
        """gradio, of which one thing breaks after some calls."""

        def __getattr__(self, name: str) -> Any:
            return getattr(gr, name)

    def breaks(*args: Any, **values: Any) -> Any:
        if not left[0]:
            raise Broken(place)
        left[0] -= 1
        return plain(*args, **values)

    fake = Gradio()
    setattr(fake, place, breaks)
    monkeypatch.setattr(layout, "gr", fake)
    demo = page(tmp_path, guarded=True)
    config = demo.get_config_file()
    assert ids(demo) == {"gym", "later"}
    known = {component["id"] for component in config["components"]} | {demo._id}
    for dependency in config["dependencies"]:
        assert {*dependency["inputs"], *dependency["outputs"]} <= known
        assert {number for number, _ in dependency["targets"] if number is not None} <= known
    assert set(demo.get_api_info()["named_endpoints"]) == {"/echo", "/loaded"}


def test_a_failing_load_event_leaves_the_page_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any, **__: Any) -> Any:
        raise Broken

    plain = layout.lay_out
    monkeypatch.setattr(tab, "lay_out", lambda board, blocks: (plain(board, blocks), breaks()))
    demo = page(tmp_path, guarded=True)
    assert ids(demo) == {"gym", "later"}
    assert len(demo.fns) == 2
