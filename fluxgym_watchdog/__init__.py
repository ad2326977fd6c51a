"""FluxGym Watchdog keeps FluxGym's LoRA trainings alive.

The patched app.py calls the two public functions: `supervise` on its log runner, `mount` inside its tabs.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from fluxgym_watchdog.settings import Settings
    from fluxgym_watchdog.watchdog import Watchdog

__version__ = "0.1.0"
__all__ = ["mount", "supervise"]

log = logging.getLogger("fluxgym_watchdog")
Runner = TypeVar("Runner", bound=type)

_running: dict[Path, tuple[Watchdog, str]] = {}
"""A FluxGym folder's watchdog, and what is wrong with the folder's settings."""
_lock = threading.Lock()


def supervise(runner: Runner) -> Runner:
    """A LogsViewRunner whose trainings are launched, watched and healed by the watchdog; all else stays the same."""
    from fluxgym_watchdog.fluxgym.runner import supervised  # noqa: PLC0415 - app.py's start stays quick

    return supervised(runner, lambda script: _watchdog(script.parent.parent.parent)[0].train(script))  # type: ignore[return-value]


def mount(root: str | Path) -> None:
    """Adds the Watchdog tab to the gr.Tabs() that is open, for the FluxGym folder `root`, and begins to watch."""
    from fluxgym_watchdog.tab import build  # noqa: PLC0415 - app.py's start stays quick

    folder = Path(root).absolute()
    watchdog, _ = _watchdog(folder)

    def problem() -> str:
        return " ".join(text for text in (_watchdog(folder)[1], watchdog.problem) if text)

    def use(settings: Settings) -> None:
        watchdog.use(settings)
        with _lock:
            _running[folder] = watchdog, ""

    build(folder, watchdog.outputs, watchdog.settings, problem, use)


def _watchdog(root: Path) -> tuple[Watchdog, str]:
    """The running watchdog of a FluxGym folder, there is one; and what is wrong with the folder's settings."""
    from fluxgym_watchdog.settings import Settings, SettingsError, load  # noqa: PLC0415
    from fluxgym_watchdog.watchdog import Watchdog  # noqa: PLC0415

    with _lock:
        if root not in _running:
            try:
                settings, problem = load(root), ""
            except SettingsError as error:
                settings, problem = Settings(), f"{error}. The defaults are used."
                log.error("%s", problem)
            watchdog = Watchdog(root / "outputs", settings)
            watchdog.start()
            _running[root] = watchdog, problem
        return _running[root]
