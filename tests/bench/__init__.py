"""The benches: how good the judgement is, and what watching costs. `python -m tests.bench --help`."""
