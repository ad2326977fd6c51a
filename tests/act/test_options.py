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


@pytest.mark.parametrize(
    "text",
    [
        'ARGS=(--max_train_epochs 4)\naccelerate launch x_train_network.py "${ARGS[@]}"',
        "accelerate launch x_train_network.py --loss_type l2 $OPTS",
        'train() { accelerate launch x_train_network.py "$@"; }',
        "accelerate launch x_train_network.py --highvram $(cat args.txt)",
        "accelerate launch x_train_network.py --sdpa --max_train_ep 4",
    ],
)
def test_options_that_cannot_be_seen_are_not_taken_for_missing(text: str) -> None:
    found = options.asked(read(text.encode()))
    assert found.total_steps(40) is None


def test_a_value_that_the_shell_makes_hides_nothing_else() -> None:
    assert options.asked(script("--output_dir $HOME/x --max_train_epochs 4")).total_steps(40) == 160
    assert options.asked(script('--output_dir "$OUT"')).total_steps(40) == 1600


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("$OUT", True),
        ('"$OUT/x"', True),
        ("~/loras", True),
        ("`pwd`", True),
        ("/a/*", True),
        ("'my $loras `x`'", False),
        ("/a/b\\$c", False),
        ('"a * b"', False),
        ("\"it's $x and that's it\"", True),
        ("$'a\\tb'", False),
    ],
)
def test_a_folder_that_cannot_be_told(text: str, hidden: bool) -> None:
    assert script(f"--output_dir {text}").hides("--output_dir") is hidden
    assert not script("").hides("--output_dir")


@pytest.mark.parametrize(
    ("rest", "elsewhere"),
    [
        ("", False),
        (">my.log", True),
        (">>my.log 2>&1", True),
        ("1> my.log", True),
        ("&>my.log", True),
        ("2>errors.log", False),
        ("2>&1", False),
        ("2>&1 | tee my.log", False),
        ("| tee my.log > /dev/null", False),
        ("> >(tee my.log)", False),
        ("; echo done > done.txt", False),
        ("\\\n", False),
    ],
)
def test_output_that_goes_elsewhere(rest: str, elsewhere: bool) -> None:
    assert options.writes_elsewhere(script(f"--loss_type l2 {rest}")) is elsewhere


@pytest.mark.parametrize(
    ("text", "begins", "sets"),
    [
        ("", False, False),
        ("--resume x-state", True, False),
        ("--initial_epoch 3", True, False),
        ("--skip_until_initial_step --initial_step=80", True, True),
        ("--network_weights w.safetensors", True, False),
    ],
)
def test_where_the_script_itself_begins(text: str, begins: bool, sets: bool) -> None:
    found = options.asked(script(text))
    assert (found.begins_within, found.sets_initial_step) == (begins, sets)
