# Target: FluxGym's app.py
# Anchor: the outermost `with gr.Tabs():`; this block becomes the last statement inside it, with its indentation.
# Why:    mount() adds the Watchdog tab to the tabs being built, and starts the watchdog for the folder of app.py. If
#         anything of ours fails, the page comes up without the tab and one line is printed, unless the block after the
#         import has printed its line already.
# >>> fluxgym-watchdog: tab >>>
try:
    from pathlib import Path as _fluxgym_watchdog_path

    from fluxgym_watchdog import mount as _fluxgym_watchdog_mount

    _fluxgym_watchdog_mount(_fluxgym_watchdog_path(__file__).absolute().parent)
except KeyboardInterrupt:
    raise
except BaseException as _fluxgym_watchdog_error:
    if not globals().get("_fluxgym_watchdog_off"):
        print(f"FluxGym Watchdog has no tab, FluxGym runs without it: {_fluxgym_watchdog_error!a}")
# <<< fluxgym-watchdog: tab <<<
