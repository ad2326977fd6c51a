"""A FluxGym-shaped folder to try the watchdog in, without a GPU, without models, and with failures on order.

The app is ours, the trainer is a stand-in that trains nothing: it writes the output, the files and the process tree
that sd-scripts writes, at a pace of choice, and hangs or crashes where it is told to.
"""

from fluxgym_watchdog.demo.fluxgym_app import create_fluxgym, environment

__all__ = ["create_fluxgym", "environment"]
