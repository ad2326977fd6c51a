"""python -m tests.bench judgement|overhead|resume|tab"""

from __future__ import annotations

import argparse
import shlex
import sys
from datetime import datetime, timezone


def main() -> int:
    """Runs one bench and prints its report."""
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of whatever is drawn by chance, default 1")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--part", type=float, default=1.0, help="judgement: this share of the corpus, default 1")
    parser.add_argument("--ticks", type=int, default=43_200, help="overhead: ticks of the simulated day, default 43200")
    parser.add_argument("--most", type=int, default=10, help="resume: the most interruptions of a run, default 10")
    parser.add_argument("bench", choices=("judgement", "overhead", "resume", "tab"))
    options = parser.parse_intermixed_args()
    command = shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]])
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    print(_report(options, command, date))
    return 0


def _report(options: argparse.Namespace, command: str, date: str) -> str:
    # Each bench is imported only when it is asked for: what it needs may not be installed.
    seed, as_json = options.seed, options.json
    if options.bench == "judgement":
        from tests.bench import judgement

        counts = [max(1, round(n * options.part)) for n in (judgement.HEALTHY, judgement.HANGS, judgement.CRASHES)]
        return judgement.report(seed, judgement.run(seed, counts), command, date, as_json)
    if options.bench == "resume":
        from tests.bench import resume

        return resume.report(seed, resume.run(seed, options.most), command, date, as_json)
    if options.bench == "tab":
        from tests.bench import tab

        return tab.report(seed, command, date, as_json)
    from tests.bench import overhead

    return overhead.report(command, date, as_json, options.ticks)


if __name__ == "__main__":
    sys.exit(main())
