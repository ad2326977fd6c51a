# Target: FluxGym's app.py
# Anchor: the statement that imports LogsViewRunner from gradio_logsview; this block goes right after it, with its
#         indentation. `LogsViewRunner` below becomes the name that the import binds.
# Why:    FluxGym starts a training with LogsViewRunner().run_command(...). The supervised class hands train scripts to
#         the watchdog and everything else to the original. No line of FluxGym is replaced. If anything of ours fails,
#         FluxGym goes on with the original class and one line is printed.
# >>> fluxgym-watchdog: supervise >>>
try:
    from fluxgym_watchdog import supervise as _fluxgym_watchdog_supervise

    LogsViewRunner = _fluxgym_watchdog_supervise(LogsViewRunner)
except KeyboardInterrupt:
    raise
except BaseException as _fluxgym_watchdog_error:
    globals()["_fluxgym_watchdog_off"] = True
    print(f"FluxGym Watchdog is off, FluxGym runs without it: {_fluxgym_watchdog_error!a}")
# <<< fluxgym-watchdog: supervise <<<
