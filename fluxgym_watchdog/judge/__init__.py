"""Pure judgement: frozen records in, frozen records out; no I/O, no clock, no thread."""
