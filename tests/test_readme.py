"""README says what the code says."""

import re
from dataclasses import fields
from pathlib import Path

from fluxgym_watchdog.settings import Settings

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_readme_lists_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\S+)(?: (\S+))? \|", README, re.MULTILINE)
    expected = []
    for setting in fields(Settings):
        default = setting.default
        value = str(default).lower() if isinstance(default, bool) else f"{default:g}"
        expected.append((setting.name, value, setting.metadata["unit"]))
    assert rows == expected


def test_pictures_in_readme_exist() -> None:
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[1] / picture).is_file(), picture
