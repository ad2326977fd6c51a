"""For the tab's tests: a run folder written through the store, with a history before `now`, and pages to see it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fluxgym_watchdog.records import (
    Attempt,
    Checkpoint,
    CheckpointKind,
    Event,
    FindingKind,
    Gpu,
    Host,
    Phase,
    RunRecord,
    RunState,
    Sample,
    Status,
)
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.store import Store

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr

from fluxgym_watchdog import tab
from tests.browsing import Pages, chromium

GIB = 1024**3


@pytest.fixture
def make_samples() -> Callable[..., list[Sample]]:
    """Samples every two seconds up to `now`, one step a sample; keyword arguments change each of them."""

    def make(count: int, now: float = 10_000.0, first_step: int = 1, **changes: Any) -> list[Sample]:
        start = now - 2 * (count - 1)
        return [
            replace(
                Sample(start + 2 * i, 0, 97.0, 15 * GIB, 24 * GIB, 72.0, 324.0, 450.0, first_step + i, 0.5), **changes
            )
            for i in range(count)
        ]

    return make


@pytest.fixture
def make_record() -> Callable[..., RunRecord]:
    """A run of 240 steps in 6 epochs that hung once at step 110 and went on from step 80."""

    def make(name: str = "persian-miniature", now: float = 10_000.0, **changes: Any) -> RunRecord:
        first = Attempt(1, now - 600, last_step=110, ended_at=now - 300, outcome="stalled")
        second = Attempt(2, now - 290, first_step=80, last_step=160, fresh=False, resumed_from=f"{name}-000002-state")
        record = RunRecord(
            name, RunState.TRAINING, attempts=(first, second), steps_per_epoch=40, total_steps=240, script="train.sh"
        )
        return replace(record, **changes)

    return make


@pytest.fixture
def make_status() -> Callable[..., Status]:
    """What a tick at `now` saw of that run: step 160, two sound states and a broken one, one GPU."""

    def make(now: float = 10_000.0, **changes: Any) -> Status:
        checkpoints = (
            Checkpoint("p-000003-state", CheckpointKind.STATE, now - 90, 119_000_000, True, epoch=3, step=120),
            Checkpoint("p-000002-state", CheckpointKind.STATE, now - 400, 119_000_000, True, epoch=2, step=80),
            Checkpoint("p-000001-state", CheckpointKind.STATE, now - 500, 8_000, False, "optimizer.bin is cut off", 1),
            Checkpoint("p-000002.safetensors", CheckpointKind.WEIGHTS, now - 400, 40_000_000, True, epoch=2, step=80),
        )
        gpu = Gpu(0, "GPU-0", "NVIDIA GeForce RTX 4090", 97.0, 15 * GIB, 24 * GIB, 72.0, 324.0, 450.0, {42: 14 * GIB})
        status = Status(
            at=now,
            state=RunState.TRAINING,
            finding=FindingKind.HEALTHY,
            text="A step every 2 s.",
            phase=Phase.TRAINING,
            attempt=2,
            step=160,
            total_steps=240,
            epoch=4,
            epochs=6,
            loss=0.413,
            seconds_per_step=2.0,
            heartbeat_at=now - 2,
            count=0,
            count_total=None,
            processes=4,
            gpu_source="nvml",
            gpus=(gpu,),
            checkpoints=checkpoints,
            host=Host(64 * GIB, 40 * GIB, 8 * GIB, GIB, 500 * GIB, 41 * GIB),
        )
        return replace(status, **changes)

    return make


@pytest.fixture
def write_run(
    make_samples: Callable[..., list[Sample]],
    make_record: Callable[..., RunRecord],
    make_status: Callable[..., Status],
) -> Callable[..., Store]:
    """Writes that run's folder as the watchdog would; `record` and `status` change what is in them."""

    def write(
        outputs: Path,
        name: str = "persian-miniature",
        now: float = 10_000.0,
        record: dict[str, Any] | None = None,
        status: dict[str, Any] | None = None,
        log: str = "epoch 4/6\n",
    ) -> Store:
        folder = outputs / name
        folder.mkdir(parents=True)
        (folder / "train.sh").write_text("accelerate launch\n", encoding="utf-8")
        (folder / "training.log").write_text(log, encoding="utf-8")
        store = Store(folder)
        store.write_record(make_record(name, now, **(record or {})))
        recent = make_samples(100, now, first_step=61)
        store.append_samples([replace(recent[0], at=now - 3000, step=1), *recent])
        store.append_event(Event(now - 300, "stalled", "No step for 58 s.", "bad", 1, {"wchan": "<b>pipe_write</b>"}))
        store.append_event(Event(now - 290, "resumed", "Went on from epoch 2 (step 80).", "ok", 2))
        store.write_status(make_status(now, **(status or {})))
        return store

    return write


TRAPS = """() => {
  window.documentInputs = 0;
  const button = document.querySelector("#autoscroll");
  button.addEventListener("click", () => button.classList.toggle("on"));
  document.addEventListener("input", () => { window.documentInputs += 1; });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs"
    folder.mkdir()
    return folder


@pytest.fixture
def serve(outputs: Path) -> Iterator[Callable[..., str]]:
    """Serves a page with FluxGym's two habits and our tab, until it is asked for another or the test is over."""
    served: list[gr.Blocks] = []

    def serving(
        settings: Settings | None = None,
        port: int | None = None,
        instead: gr.Blocks | None = None,
        meanwhile: Callable[[], None] = lambda: None,
        **arguments: Any,
    ) -> str:
        while served:
            _close(served.pop())
        meanwhile()
        if instead is not None:
            return launched(instead, port)
        with gr.Blocks() as demo:
            with gr.Tabs():
                with gr.TabItem("Gym"):
                    gr.HTML("<button id='autoscroll' class='on'>Autoscroll</button>")
                    gr.Textbox("accelerate launch", label="Train script", elem_id="script", interactive=True)
                tab.build(outputs.parent, outputs, settings or Settings(), **arguments)
            demo.load(None, None, None, js=TRAPS)
        return launched(demo, port)

    def launched(demo: gr.Blocks, port: int | None) -> str:
        demo.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True)
        served.append(demo)
        return str(demo.local_url)

    yield serving
    while served:
        _close(served.pop())


@pytest.fixture
def address(serve: Callable[..., str]) -> str:
    return serve()


@pytest.fixture
def pages(browser: Any) -> Iterator[Pages]:
    pages = Pages(browser)
    yield pages
    pages.close()
    assert pages.problems == []


@pytest.fixture
def open_page(pages: Pages, address: str) -> Callable[..., Any]:
    """Opens the page at the test's address."""
    return lambda **how: pages.open(address, **how)


def _close(demo: gr.Blocks) -> None:
    """Ends a served page. Gradio 6 sets an asyncio event from this thread, which fails while its loop reads it."""
    try:
        demo.close()
    except RuntimeError:
        demo.close()
