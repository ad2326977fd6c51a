"""python -m tests.bench judgement|overhead|resume"""

from __future__ import annotations

import argparse
import shlex
import sys
from datetime import datetime, timezone


def main() -> int:
    """Runs one bench and prints its report."""
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the corpus and of the interruptions, default 1")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--part", type=float, default=1.0, help="judgement: this share of the corpus, default 1")
    parser.add_argument("--ticks", type=int, default=43_200, help="overhead: ticks of the simulated day, default 43200")
    parser.add_argument("--most", type=int, default=10, help="resume: the most interruptions of a run, default 10")
    parser.add_argument("bench", choices=("judgement", "overhead", "resume"))
    options = parser.parse_intermixed_args()
    command = shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]])
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    if options.bench == "judgement":
        from tests.bench import judgement

        counts = [max(1, round(n * options.part)) for n in (judgement.HEALTHY, judgement.HANGS, judgement.CRASHES)]
        outcomes = judgement.run(options.seed, counts)
        print(judgement.report(options.seed, outcomes, command, date, options.json))
        return 0
    if options.bench == "resume":
        from tests.bench import resume

        runs = resume.run(options.seed, options.most)
        print(resume.report(options.seed, runs, command, date, options.json))
        return 0
    from tests.bench import overhead

    print(overhead.report(command, date, options.json, options.ticks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
