"""What a training command's options say, and which are added."""

from __future__ import annotations

import pytest

from fluxgym_watchdog.act import options
from fluxgym_watchdog.act.script import read
from fluxgym_watchdog.records import Asked


def script(text: str) -> options.Script:
    return read(f"accelerate launch x_train_network.py {text}\n".encode())


def test_what_fluxgym_s_script_asks_for() -> None:
    found = options.asked(
        script(
            "--max_train_epochs 16 --save_every_n_epochs 4 --network_dim 4 --optimizer_type adamw8bit "
            "--save_precision bf16 --save_model_as safetensors --lr_scheduler constant_with_warmup"
        )
    )
    assert found == Asked(
        epochs=16,
        save_every_epochs=4,
        rank=4,
        optimizer="adamw8bit",
        lr_scheduler="constant_with_warmup",
        save_precision="bf16",
    )
    assert found.total_steps(100) == 1600
    assert found.total_steps(None) is None


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("--max_train_steps 500", 500),
        ("--max_train_steps 500 --max_train_epochs 2", 80),
        ("", 1600),  # the trainer's default
        ("--max_train_steps $STEPS", None),
        ("--max_train_epochs '`echo 3`'", None),
        ("--max_train_epochs 1e3", None),
    ],
)
def test_the_steps_asked_for(text: str, total: int | None) -> None:
    assert options.asked(script(text)).total_steps(40) == total


def test_what_a_config_file_may_say_is_not_guessed() -> None:
    found = options.asked(script("--config_file train.toml --network_dim 4"))
    assert (found.total_steps(40), found.lr_scheduler) == (None, "")


@pytest.mark.parametrize(
    ("text", "added"),
    [
        ("", ["--save_state", "--save_last_n_epochs_state", "2"]),
        ("--save_state", []),
        ("--save_last_n_epochs 3", ["--save_state"]),
        ("--save_last_n_epochs_state 3", ["--save_state"]),
        ("--save_last_n_steps_state 3", ["--save_state"]),
    ],
)
def test_states_are_saved_and_the_script_s_own_wishes_kept(text: str, added: list[str]) -> None:
    assert options.saving(options.asked(script(text)), save_states=True, keep_states=2) == added
    assert options.saving(options.asked(script(text)), save_states=False, keep_states=2) == []


def test_paths_are_what_the_script_names_in_plain_text() -> None:
    by_the_shell = "--dataset_config $HERE/dataset.toml --t5xxl ~/t5.sft --clip_l /a*"
    found = options.named_paths(script(f"--ae /models/ae.sft --output_dir 'my loras' {by_the_shell}"))
    assert found == {"--ae": "/models/ae.sft", "--output_dir": "my loras"}
