"""FluxGym Watchdog keeps FluxGym's LoRA trainings alive.

The patched app.py calls the two public functions: `supervise` on its log runner, `mount` inside its tabs.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from fluxgym_watchdog.watchdog import Watchdog

__version__ = "0.1.0"
__all__ = ["mount", "supervise"]

log = logging.getLogger("fluxgym_watchdog")
Runner = TypeVar("Runner", bound=type)

_running: dict[Path, Watchdog] = {}
_lock = threading.Lock()


def supervise(runner: Runner) -> Runner:
    """A LogsViewRunner whose trainings are launched, watched and healed by the watchdog; all else stays the same."""
    from fluxgym_watchdog.fluxgym.runner import supervised  # noqa: PLC0415 - app.py's start stays quick

    return supervised(runner, lambda script: _watchdog(script.parent.parent.parent).train(script))  # type: ignore[return-value]


def mount(root: str | Path) -> None:
    """Adds the Watchdog tab to the gr.Tabs() that is open, for the FluxGym folder `root`, and begins to watch."""
    from fluxgym_watchdog.tab import build  # noqa: PLC0415 - app.py's start stays quick

    watchdog = _watchdog(Path(root).absolute())
    build(Path(root).absolute(), watchdog.outputs, watchdog.settings)


def _watchdog(root: Path) -> Watchdog:
    """The running watchdog of a FluxGym folder; there is one."""
    from fluxgym_watchdog.settings import Settings, SettingsError, load  # noqa: PLC0415
    from fluxgym_watchdog.watchdog import Watchdog  # noqa: PLC0415

    with _lock:
        if root not in _running:
            try:
                settings, problem = load(root), ""
            except SettingsError as error:
                settings, problem = Settings(), f"{error}. The defaults are used."
                log.error("%s", problem)
            _running[root] = Watchdog(root / "outputs", settings)
            _running[root].problem = problem
            _running[root].start()
        return _running[root]
