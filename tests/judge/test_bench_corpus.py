"""A small part of the bench's corpus, so that no change of the judgement goes unnoticed. The whole: tests/bench."""

from __future__ import annotations

from tests.bench.healthy import MAKERS
from tests.bench.judgement import corpus, judge_timeline
from tests.bench.rules import Seed, Watchdog


def test_no_false_kill_and_every_fault_found() -> None:
    outcomes = [judge_timeline(t, (Watchdog,)) for t in corpus(7, len(MAKERS), 44, 33)]
    rule = Watchdog.name
    assert [o.timeline.name for o in outcomes if o.false_kill(rule)] == []
    faulty = [o for o in outcomes if o.timeline.label != "healthy"]
    assert [o.timeline.name for o in faulty if o.detection_s(rule) is None] == []
    crashed = [o for o in faulty if o.timeline.label == "crash"]
    assert {o.timeline.name: o.verdicts[rule].cause for o in crashed} == {
        o.timeline.name: o.timeline.cause for o in crashed
    }


def test_the_corpus_can_come_out_badly() -> None:
    outcomes = [judge_timeline(t) for t in corpus(7, 12, 6, 2)]
    assert sum(o.false_kill(Seed.name) for o in outcomes) > 6
    assert any(o.detection_s(Seed.name) is None for o in outcomes if o.timeline.label == "hang")
