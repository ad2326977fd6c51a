"""Settings → HTML: each with its meaning, changeable in the page for all runs; and what this page's reader wants of
it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from fluxgym_watchdog.settings import FILE_NAME, Settings, SettingsError
from fluxgym_watchdog.tab.words import escape

SHOWN = 40
"""Of what is no setting so many letters are said back."""

_CHOICES = {"true": True, "false": False}


def form(settings: Settings) -> str:
    """All settings as a form. Why a change was not made is put into it by the page's script: nothing typed is lost."""
    defaults = Settings()
    rows = "".join(
        _row(f.name, f.metadata, type(f.default), getattr(settings, f.name), getattr(defaults, f.name))
        for f in fields(Settings)
    )
    return (
        "<section class='wd wd-box'><details data-key='settings'><summary><h3>Settings</h3></summary>"
        f"<p class='wd-mut'>For all runs, kept in {FILE_NAME} and in use from the next look on. The switch Auto-resume "
        "above is for one run; here is how new runs begin.</p>"
        f"<form data-form='settings'><div class='wd-settings'>{rows}</div>"
        "<p class='wd-bad' role='alert' data-form-says=''></p>"
        "<p><button type='submit' class='wd-button'>Save</button></p></form>"
        "<h3>Alerts in this browser</h3><p class='wd-mut'>When the run shown needs a look, the page's title and icon "
        "say so. With one of these it is also watched while another tab of this page is open.</p>"
        "<p class='wd-alerts'><label><input type='checkbox' data-alert='sound'> a sound</label>"
        "<label><input type='checkbox' data-alert='notification'> a notification</label>"
        "<span class='wd-mut' data-alert-says='' role='status'></span></p></details></section>"
    )


def changed(found: Mapping[str, object]) -> dict[str, object]:
    """The values of a form as settings: a page sends text. Raises SettingsError for what is no number.

    Whether a key is known and a number allowed is for `settings.with_values` to say.
    """
    kinds = {f.name: type(f.default) for f in fields(Settings)}
    return {key[:SHOWN]: _value(key, kinds.get(key), text) for key, text in found.items()}


def _value(key: str, kind: type | None, text: object) -> object:
    text = str(text).strip()
    if kind is bool:
        return _CHOICES.get(text, text[:SHOWN])
    try:
        return int(text) if kind is int else float(text) if kind is float else text[:SHOWN]
    except ValueError:
        whole = "a whole number" if kind is int else "a number"
        raise SettingsError(f"Settings: {key} = {text[:SHOWN]!r}; allowed: {whole}") from None


def _row(name: str, about: Mapping[str, object], kind: type, value: object, default: object) -> str:
    unit = f" {about['unit']}" if about["unit"] else ""
    label, text = f"wd-set-{name}", escape(str(about["text"]))
    usual = f"default {_shown(default)}{unit}" + ("" if value == default else " <b>(changed)</b>")
    if kind is bool:
        options = "".join(
            f"<option value='{text_}'{' selected' if value is said else ''}>{_shown(said)}</option>"
            for text_, said in _CHOICES.items()
        )
        box = f"<select id='{label}' name='{name}'>{options}</select>"
    else:
        mode = "numeric" if kind is int else "decimal"
        box = f"<input id='{label}' name='{name}' inputmode='{mode}' autocomplete='off' value='{_shown(value)}'>"
    return (
        f"<div><label for='{label}'><b>{name}</b></label><span class='wd-set'>{box}{unit}</span>"
        f"<span class='wd-mut'>{text}; {usual}</span></div>"
    )


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else escape(value)
