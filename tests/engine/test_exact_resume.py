"""The steps asked for, whatever happened: ends that only lack a file, old runs, moved runs, scripts not understood."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fluxgym_watchdog.judge.causes import LOAD_WHOLE
from fluxgym_watchdog.observe.soundness import safetensors_reason, trained
from fluxgym_watchdog.records import RunState
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.watchdog import Watchdog
from tests.trainings import PARKED, Training, finished_exactly, tick_until, until

Watchdogs = Callable[..., Watchdog]


def final_weights(training: Training) -> Path:
    return training.run_folder / f"{training.name}.safetensors"


def asked_for(training: Training, epochs: int) -> None:
    """Edits train.sh: so many epochs."""
    text = training.script.read_text()
    training.script.write_text(text.replace(f"--max_train_epochs {training.epochs}", f"--max_train_epochs {epochs}"))
    training.epochs = epochs


# the end


def test_a_training_that_died_before_its_final_weights_is_completed_not_trained(short_training: Training) -> None:
    """`save_precision` is not set, so the weights keep the state's precision; the stand-in's own would be bfloat16."""
    short_training.lay_out("--save_precision bf16")
    finished_exactly(short_training, short_training.run(faults="kill@weights"))
    assert len(short_training.record.attempts) == 1
    assert "made it from demo-lora-state" in short_training.events("completed")[0]
    assert safetensors_reason(final_weights(short_training)) == ""
    told = trained(final_weights(short_training))
    assert (told.epoch, told.metadata["ss_steps"]) == (2, "80")
    made = final_weights(short_training).read_bytes()
    again = short_training.run("--from-beginning")
    assert again.ends() == 0
    assert made[-512:] == final_weights(short_training).read_bytes()[-512:]  # the trainer's own hold the same numbers


def test_the_same_where_nobody_may_restart_it_any_more(short_training: Training) -> None:
    finished_exactly(short_training, short_training.run("--max-restarts", "0", faults="kill@weights"))


def test_without_auto_resume_the_end_is_only_told(short_training: Training) -> None:
    started = short_training.run(faults="kill@weights", auto_resume=False)
    assert started.ends() != 0
    assert short_training.state is RunState.CRASHED
    assert not final_weights(short_training).exists()
    finished_exactly(short_training, short_training.supervise("resume", str(short_training.run_folder)))
    assert len(short_training.record.attempts) == 1


def test_other_formats_are_not_written_here_and_nothing_is_trained_again(short_training: Training) -> None:
    short_training.lay_out("--save_model_as ckpt")
    started = short_training.run(faults="kill@weights")
    assert started.ends() != 0
    assert short_training.state is RunState.FAILED
    assert "all steps are made and in demo-lora-state" in short_training.record.reason
    assert len(short_training.executed) == 80


# what is in the ledger


def test_the_ledger_knows_the_step_of_every_state_of_every_attempt(training: Training) -> None:
    training.lay_out("--save_every_n_steps 25", "--save_last_n_epochs_state 9")
    finished_exactly(training, training.run(faults="crash@60,crash@130,crash@200"))
    found = {c["name"]: c for c in training.ask("checkpoints", str(training.run_folder))}
    ledger = {line.stamp: line for line in training.record.ledger}
    states = [c for c in found.values() if c["kind"] == "state"]
    assert len(states) > 6
    for checkpoint in states:
        line = ledger[f"{checkpoint['name']}@{checkpoint['saved_at']:.3f}"]
        assert line.step == checkpoint["step"]
    assert found["demo-lora-000003-state"]["step"] == 120
    assert found["demo-lora-state"]["step"] == 240


def test_a_state_stands_in_the_ledger_once_however_many_supervisors_saw_it(
    short_training: Training, watchdogs: Watchdogs
) -> None:
    first = watchdogs("stop@50")
    first.train(short_training.script)
    tick_until(first, lambda: short_training.record.ledger, "the first state")
    first.stop()
    second = watchdogs("stop@50")
    tick_until(second, lambda: short_training.events("adopted"), "the second supervisor")
    short_training.parked()
    short_training.go_on()
    tick_until(second, lambda: short_training.state is RunState.FINISHED, "the end")
    stamps = [line.stamp for line in short_training.record.ledger]
    assert len(stamps) == len(set(stamps)) == 2
    assert len([t for t in short_training.events("checkpoint") if "000001" in t]) == 1


# where a training ends, once more


@pytest.mark.parametrize("faults", ["half_state@160", "crash@weights", "hang@weights"])
def test_a_run_that_was_extended_does_not_end_with_its_old_weights(short_training: Training, faults: str) -> None:
    assert short_training.run().ends() == 0
    old = final_weights(short_training).read_bytes()
    asked_for(short_training, 4)
    resumed = short_training.supervise("resume", str(short_training.run_folder), faults=faults)
    finished_exactly(short_training, resumed)
    assert final_weights(short_training).read_bytes() != old
    assert trained(final_weights(short_training)).epoch == 4


def test_a_mistaken_choice_changes_nothing(short_training: Training, watchdogs: Watchdogs) -> None:
    assert short_training.run().ends() == 0
    refused = short_training.cli("resume", str(short_training.run_folder), "--from", "demo-lora-state")
    assert refused.ends() == 2
    assert "holds the last step" in refused.output
    short_training.store.request("resume", checkpoint="demo-lora-state")
    tick_until(watchdogs(), lambda: any("cannot be" in t for t in short_training.events("request")), "the answer")
    assert short_training.state is RunState.FINISHED
    again = short_training.run()
    assert again.ends() == 0
    assert "--from-beginning" in again.output
    assert len(short_training.executed) == 80


def test_a_finished_run_that_was_never_watched_is_not_trained_over(short_training: Training) -> None:
    assert short_training.plain().ends() == 0
    again = short_training.run()
    assert again.ends() == 0
    assert "--from-beginning" in again.output
    assert len(short_training.executed) == 80


def test_what_was_trained_beyond_what_is_asked_for_now_is_not_thrown_away(training: Training) -> None:
    assert training.run(faults="crash@180", auto_resume=False).ends() != 0
    asked_for(training, 3)
    refused = training.supervise("resume", str(training.run_folder))
    assert refused.ends() == 93
    assert "demo-lora-000004-state holds step 160, and the train script asks for 120" in training.record.reason
    asked_for(training, 4)
    completed = training.supervise("resume", str(training.run_folder))
    assert completed.ends() == 0, completed.output
    assert trained(final_weights(training)).metadata["ss_steps"] == "160"
    assert len(training.executed) == 179


def test_resuming_over_the_dead_heeds_what_is_asked(training: Training) -> None:
    """The machine went down: the record still calls the run live."""
    started = training.run(*PARKED, faults="stop@130", auto_resume=False)
    training.parked()
    started.process.kill()
    started.process.wait()
    for process in training.marked():
        psutil.Process(process.pid).kill()
    training.nothing_left()
    assert training.state is RunState.TRAINING
    resumed = training.supervise(
        "resume", str(training.run_folder), "--from", "demo-lora-000002-state", auto_resume=False
    )
    assert resumed.ends() == 0, resumed.output
    assert training.record.attempts[-1].first_step == 80
    assert training.lineage == list(range(1, 241))


def test_who_goes_back_to_an_earlier_training_stays_with_it(training: Training) -> None:
    """A second training was begun in the same folder, and is left for the first one, which then crashes."""
    finished_exactly(training, training.run())
    assert training.run("--from-beginning", faults="crash@60", auto_resume=False).ends() != 0
    before = len(training.executed)
    earlier = "demo-lora-000005-state"
    resumed = training.supervise("resume", str(training.run_folder), "--from", earlier, faults="crash@206")
    assert resumed.ends() == 0, resumed.output
    assert [step for _, step in training.executed[before:]] == [*range(201, 206), *range(201, 241)]
    assert "goes on from epoch 5 (step 200); 5 steps to train again." in training.events("resumed")[-1]
    training.nothing_left()


# options that cannot be seen, and a start of the script's own


def test_options_in_an_array_are_believed_as_the_trainer_tells_them(training: Training) -> None:
    text = training.script.read_text().replace("--max_train_epochs 6", '"${ARGS[@]}"')
    training.script.write_text(f"ARGS=(--max_train_epochs 6)\n{text}")
    finished_exactly(training, training.run(faults="crash@130,crash@200"))


@pytest.mark.parametrize(
    "own", ["--initial_epoch 3", "--skip_until_initial_step --initial_step 80"], ids=["its epoch", "its step"]
)
def test_a_script_that_begins_within_is_gone_on_with(training: Training, own: str) -> None:
    training.lay_out(own)
    started = training.run(faults="crash@130,crash@200")
    assert started.ends() == 0, started.output
    assert training.lineage == list(range(81, 241))


def test_a_copy_of_a_run_that_was_never_watched_does_not_write_into_the_original(short_training: Training) -> None:
    assert short_training.plain(DEMO_FAULTS="crash@60").ends() != 0
    copy = short_training.run_folder.with_name("experiment")
    shutil.copytree(short_training.run_folder, copy)
    refused = short_training.cli("resume", str(copy))
    assert refused.ends() == 2
    assert "another run's folder" in refused.output


def test_output_that_goes_elsewhere_is_no_silence(short_training: Training) -> None:
    text = short_training.script.read_text().rstrip("\\\n ")
    short_training.script.write_text(f"{text} >my.log 2>&1\n")
    started = short_training.run()
    assert started.ends() == 0, started.output
    assert short_training.events("silent")
    assert short_training.lineage == list(range(1, 81))


# runs that were never watched


@pytest.mark.parametrize("options", [(), ("--save_every_n_steps 25",)], ids=["epoch states", "step states"])
def test_a_run_that_was_never_watched_is_gone_on_with(training: Training, options: tuple[str, ...]) -> None:
    training.lay_out("--save_state", *options)
    killed = training.plain(DEMO_FAULTS="crash@79")
    assert killed.ends() != 0
    found = training.ask("checkpoints", str(training.run_folder))
    assert max(c["step"] or 0 for c in found if c["kind"] == "state") == (75 if options else 40)
    finished_exactly(training, training.supervise("resume", str(training.run_folder)))


def test_and_from_its_weights_where_it_has_no_state(training: Training) -> None:
    killed = training.plain(DEMO_FAULTS="crash@100")
    assert killed.ends() != 0
    finished_exactly(training, training.supervise("resume", str(training.run_folder)))
    assert "from the weights of epoch 2" in training.events("started")[0]


def test_asking_in_the_tab_is_enough(short_training: Training, watchdogs: Watchdogs) -> None:
    short_training.lay_out("--save_state")
    killed = short_training.plain(DEMO_FAULTS="crash@60")
    assert killed.ends() != 0
    watchdog = watchdogs()
    short_training.store.request("resume")
    tick_until(watchdog, lambda: short_training.state is RunState.FINISHED, "the end")
    assert short_training.lineage == list(range(1, 81))
    asked_for(short_training, 3)
    short_training.store.request("resume")
    tick_until(watchdog, lambda: len(short_training.record.attempts) == 2, "the second attempt")
    tick_until(watchdog, lambda: short_training.state is RunState.FINISHED, "the later end")
    assert short_training.lineage == list(range(1, 121))


def test_a_never_watched_run_is_never_begun_anew_by_resuming_it(short_training: Training) -> None:
    killed = short_training.plain(DEMO_FAULTS="crash@10")
    assert killed.ends() != 0
    (short_training.run_folder / "demo-lora-000001.safetensors").write_bytes(b"cut off")
    resumed = short_training.supervise("resume", str(short_training.run_folder))
    assert resumed.ends() == 93
    assert "no sound checkpoint to go on from" in short_training.record.reason
    assert len(short_training.executed) == 9


@pytest.mark.parametrize("watched", [True, False])
def test_a_finished_run_goes_on_when_more_epochs_are_asked_for(short_training: Training, watched: bool) -> None:
    short_training.lay_out("--save_state")
    first = short_training.run() if watched else short_training.plain()
    assert first.ends() == 0
    same = short_training.supervise("resume", str(short_training.run_folder))
    assert same.ends() == 0
    assert "nothing left to train" in same.output
    asked_for(short_training, 4)
    finished_exactly(short_training, short_training.supervise("resume", str(short_training.run_folder)))


def test_a_fluxgym_folder_that_was_moved_goes_on_at_its_new_place(short_training: Training, tmp_path: Path) -> None:
    """As after a copy to another machine: the train script still names the old place."""
    started = short_training.run(faults="crash@60", auto_resume=False)
    assert started.ends() != 0
    moved = tmp_path / "another machine" / "gym"
    moved.parent.mkdir()
    short_training.root.rename(moved)
    again = Training(moved, epochs=2)
    again.script.write_text(again.script.read_text().replace(str(moved), str(short_training.root)))
    dataset = again.run_folder / "dataset.toml"
    assert str(short_training.root) in again.script.read_text()
    dataset.write_text(dataset.read_text().replace(str(short_training.root), str(moved)))
    finished_exactly(again, again.supervise("resume", str(again.run_folder)))
    assert f"--output_dir {again.run_folder}" in again.events("paths")[0]
    assert not short_training.root.exists()


def test_paths_that_are_nowhere_are_named(short_training: Training) -> None:
    short_training.lay_out("--save_state", "--ae /gone/models/ae.sft")
    started = short_training.run(faults="crash@60")
    assert started.ends() == 0  # the stand-in needs no such file
    assert short_training.events("paths")[0] == (
        "The train script names what is not on this machine: --ae /gone/models/ae.sft."
    )


# asked for in steps


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_training_that_ends_within_an_epoch_ends_there(training: Training, accumulation: int) -> None:
    """Every resumed one would train its last epoch to the end, by the trainer's arithmetic."""
    training.script.write_text(
        training.script.read_text().replace(
            "--max_train_epochs 6", f"--max_train_steps 90 --gradient_accumulation_steps {accumulation}"
        )
    )
    started = training.run(faults="crash@45,crash@83,crash@87")
    assert started.ends() == 0, started.output
    assert training.lineage == list(range(1, 91))
    assert training.state is RunState.FINISHED


def test_a_rate_that_follows_a_curve_is_not_disturbed_and_the_surplus_is_said(training: Training) -> None:
    training.script.write_text(
        training.script.read_text().replace("--max_train_epochs 6", "--max_train_steps 90 --lr_scheduler cosine")
    )
    started = training.run(faults="crash@45")
    assert started.ends() == 0, started.output
    assert training.lineage == list(range(1, 121))
    assert "30 steps more than asked for" in training.events("resumed")[0]


# scripts that are not understood


def not_understood(training: Training) -> None:
    text = training.script.read_text().rstrip("\\\n ")
    training.script.write_text(f"cat <<END >/dev/null\nnotes\nEND\n{text}\n")


def test_a_script_that_is_not_understood_is_started_as_it_stands_and_watched(short_training: Training) -> None:
    not_understood(short_training)
    started = short_training.run()
    assert started.ends() == 0, started.output
    assert short_training.state is RunState.FINISHED
    assert short_training.lineage == list(range(1, 81))
    assert "line 1: here-documents are not understood" in short_training.events("unresumable")[0]
    script = short_training.run_folder / ".watchdog" / "attempt-1.sh"
    assert script.read_bytes() == short_training.script.read_bytes()


def test_it_is_not_started_a_second_time_by_itself(short_training: Training) -> None:
    not_understood(short_training)
    started = short_training.run(faults="crash@60")
    assert started.ends() != 0
    assert short_training.state is RunState.FAILED
    assert "here-documents are not understood" in short_training.record.reason
    assert len(short_training.record.attempts) == 1
    refused = short_training.supervise("resume", str(short_training.run_folder))
    assert refused.ends() == 93
    assert len(short_training.record.attempts) == 1


def test_a_hang_of_it_is_told_and_not_touched(short_training: Training, watchdogs: Watchdogs) -> None:
    not_understood(short_training)
    watchdog = watchdogs("hang@50")
    watchdog.train(short_training.script)
    tick_until(watchdog, lambda: short_training.events("ask"), "the question")
    assert short_training.trainer().is_running()
    assert short_training.state is RunState.STALLED


# versions that cannot load


def variables_of_the_trainer(training: Training) -> dict[str, str]:
    return psutil.Process(training.parked().pid).environ()


def test_versions_that_cannot_load_their_states_are_cured_before_the_first_resume(
    short_training: Training, watchdogs: Watchdogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, version in (("accelerate", "0.33.0"), ("torch", "2.6.0")):
        described = short_training.root / "packages" / f"{name}-{version}.dist-info"
        described.mkdir(parents=True)
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    watchdog = watchdogs("stop@10,crash@50,stop@60", Settings(check_interval=0.1, backoff=0.1, stop_grace=1))
    monkeypatch.setenv("PYTHONPATH", f"{short_training.root / 'packages'}{os.pathsep}{os.environ['PYTHONPATH']}")
    watchdog.train(short_training.script)
    tick_until(watchdog, lambda: short_training.events("cure"), "the cure, before anything went wrong")
    assert "accelerate 0.33.0 with torch 2.6.0 cannot load all" in short_training.events("cure")[0]
    assert short_training.record.cures == (LOAD_WHOLE,)
    short_training.parked()
    short_training.go_on()
    tick_until(watchdog, lambda: any(s == 59 for _, s in short_training.executed), "step 59, by the second attempt")
    name, value = LOAD_WHOLE.split("=")
    assert variables_of_the_trainer(short_training)[name] == value
    short_training.go_on()
    tick_until(watchdog, lambda: short_training.state is RunState.FINISHED, "the end")
    assert len(short_training.record.attempts) == 2
    assert len(short_training.events("cure")) == 1


def test_versions_that_nobody_told_are_cured_after_the_first_failure(short_training: Training) -> None:
    """The state is not blamed: set aside, it would be lost, and the older ones after it."""
    launcher = short_training.root / "bin" / "accelerate"
    real = launcher.with_name("the-real-one")
    launcher.rename(real)
    launcher.write_text(
        "#!/bin/sh\n"
        f'case "$* $TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" in *--resume*" 1") ;; *--resume*) '
        "echo 'INFO     resume training from local state: x'; echo \"KeyError: 'step'\"; exit 1;; esac\n"
        f'exec "{real}" "$@"\n'
    )
    launcher.chmod(0o755)
    finished_exactly(short_training, short_training.run(faults="crash@50"))
    record = short_training.record
    assert record.cures == (LOAD_WHOLE,)
    assert record.quarantined == ()
    assert [a.first_step for a in record.attempts] == [0, 40, 40]


# how much hangs on a save


def seldom_saved(training: Training) -> None:
    text = training.script.read_text()
    training.script.write_text(text.replace("--save_every_n_epochs 1", "--save_every_n_epochs 3"))


def slow_pace(training: Training, pace_s: float) -> None:
    """Another run on this machine has told how long a step takes."""
    other = training.root / "outputs" / "other"
    (other / ".watchdog").mkdir(parents=True)
    text = {"name": "other", "state": "finished", "pace_s": pace_s, "schema": 1}
    (other / ".watchdog" / "run.json").write_text(json.dumps(text))


def test_too_much_work_at_risk_is_said_before_the_start_and_closer_saves_are_offered(training: Training) -> None:
    training.script.write_text(
        training.script.read_text().replace("--save_every_n_epochs 1", "--save_every_n_epochs 3")
    )
    slow_pace(training, 10.0)
    started = training.run(*PARKED, faults="stop@10")
    training.parked()
    (risk,) = training.events("risk")
    assert "Up to 20 min 0 s of work (120 steps) can be lost between two saves" in risk
    assert "Saving every 2 epochs would risk 13 min 20 s" in risk
    assert training.store.read_events()[0].kind == "risk"  # before anything was started
    started.signal(signal.SIGINT)
    started.ends()
    accepted = training.cli("saves", str(training.run_folder), "--closer")
    assert accepted.ends() == 0, accepted.output
    assert training.record.save_options == ("--save_every_n_epochs", "2")
    finished_exactly(training, training.supervise("resume", str(training.run_folder)))
    script = training.run_folder / ".watchdog" / "attempt-2.sh"
    assert "--save_every_n_epochs 2" in script.read_text()
    assert (training.run_folder / "demo-lora-000004.safetensors").exists()


def test_an_accepted_offer_stays_accepted(training: Training) -> None:
    seldom_saved(training)
    assert training.cli("saves", str(training.run_folder), "--closer").ends() == 0
    assert training.store.read_record() == (None, "")  # nobody knows yet how long a step takes: nothing was offered
    assert "Nothing was changed" in training.events("saves")[0]
    slow_pace(training, 10.0)
    for _ in range(2):
        assert training.cli("saves", str(training.run_folder), "--closer").ends() == 0
        assert training.record.save_options == ("--save_every_n_epochs", "2")
    assert training.cli("saves", str(training.run_folder), "--as-script").ends() == 0
    assert training.record.save_options == ()


def test_the_script_s_own_interval_is_kept_and_not_asked_about_again(training: Training) -> None:
    training.script.write_text(
        training.script.read_text().replace("--save_every_n_epochs 1", "--save_every_n_epochs 3")
    )
    slow_pace(training, 10.0)
    training.store.folder.mkdir()
    assert training.cli("saves", str(training.run_folder), "--as-script").ends() == 0
    finished_exactly(training, training.run())
    assert training.events("risk") == []
    assert training.record.closer_saves is False


def test_the_setting_accepts_the_offer_for_every_training(training: Training) -> None:
    training.script.write_text(
        training.script.read_text().replace("--save_every_n_epochs 1", "--save_every_n_epochs 3")
    )
    slow_pace(training, 10.0)
    (training.root / "watchdog.yaml").write_text("closer_saves: true\n")
    finished_exactly(training, training.run())
    assert "as the setting closer_saves says" in training.events("saves")[0]
    assert training.record.save_options == ("--save_every_n_epochs", "2")


# what may go


def test_states_are_deleted_only_by_name_and_with_their_size(training: Training) -> None:
    training.lay_out("--save_last_n_epochs_state 9")
    finished_exactly(training, training.run())
    states = sorted(p.name for p in training.run_folder.glob("*-state"))
    asked = training.cli("prune", str(training.run_folder))
    assert asked.ends() == 0
    assert "Nothing was deleted" in asked.output
    assert sorted(p.name for p in training.run_folder.glob("*-state")) == states
    done = training.cli("prune", str(training.run_folder), "--yes")
    assert done.ends() == 0, done.output
    assert f"Deleted {len(states)} states" in done.output
    assert not list(training.run_folder.glob("*-state"))
    assert len(training.events("delete")) == len(states)
    assert final_weights(training).exists()
    assert len(list(training.run_folder.glob("*.safetensors"))) == training.epochs


def test_the_state_that_a_run_would_go_on_from_is_not_deleted(short_training: Training, watchdogs: Watchdogs) -> None:
    started = short_training.run(faults="crash@60", auto_resume=False)
    assert started.ends() != 0
    (state,) = (c for c in short_training.ask("checkpoints", str(short_training.run_folder)) if c["kind"] == "state")
    stamp = f"{state['name']}@{state['saved_at']:.3f}"
    short_training.store.request("delete", checkpoints=[stamp, "../../etc@1.000", "demo-lora-000009-state@1.000"])
    watchdog = watchdogs()
    tick_until(watchdog, lambda: len(short_training.events("delete")) == 3, "the answers")
    assert any("may go on from it" in text for text in short_training.events("delete"))
    assert sum("not there any more" in text for text in short_training.events("delete")) == 2
    assert (short_training.run_folder / state["name"]).is_dir()


def test_nothing_is_deleted_beside_a_training_that_nobody_watches(
    short_training: Training, watchdogs: Watchdogs
) -> None:
    short_training.lay_out("--save_state")
    short_training.plain(DEMO_FAULTS="stop@60")
    short_training.parked()
    state = short_training.run_folder / "demo-lora-000001-state"
    saved_at = (state / "random_states_0.pkl").stat().st_mtime
    short_training.store.request("delete", checkpoints=[f"{state.name}@{saved_at:.3f}"])
    tick_until(watchdogs(), lambda: short_training.events("delete"), "the answer")
    assert "a training that is not watched" in short_training.events("delete")[0]
    assert state.is_dir()


# names


@pytest.mark.parametrize("name", ["two words", "l'été 猫", 'a "b" $(touch x) `c`', "new\nline", "50%-done"])
def test_any_name_is_resumed_exactly(tmp_path: Path, name: str) -> None:
    training = Training(tmp_path.resolve() / "gym", name=name, epochs=2)
    quoted = "'" + name.replace("'", "'\\''") + "'"
    text = training.script.read_text()
    text = text.replace(f'"{training.run_folder}/dataset.toml"', f'"{training.root}/dataset.toml"')
    text = text.replace(f'--output_dir "{training.run_folder}"', f'--output_dir "{training.root}/outputs"/{quoted}')
    training.script.write_text(text.replace(f"--output_name {name}", f"--output_name {quoted}"))
    shutil.copy(training.run_folder / "dataset.toml", training.root)
    try:
        finished_exactly(training, training.run(faults="crash@60"))
        assert not (training.root / "x").exists()
        until(lambda: training.cli("checkpoints", str(training.run_folder)).ends() == 0, "the listing")
    finally:
        from tests.trainings import clean_up

        clean_up(training.root)
