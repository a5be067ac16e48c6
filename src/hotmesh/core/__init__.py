"""Decides. Pure functions over frozen data: no I/O, no clock, no randomness, no logging.

    YAML → Document → App → Plan            once per version:  `definition`, `plan`
    Plan + request        → Step            a new job:         `advance.advance.start`
    Plan + Job + events   → Step            what happened:     `advance.advance.advance`

In reading order:

state         what deciding and remembering speak of: jobs, records, events, steps, spans
advance       decides what events do to a job
plan          graphs as the engine runs them
definition    graphs as their authors write them, and what is wrong with them
mapping       expressions, map trees and conditions as closures: the face of `pipe`
pipe          the mapping language from within
schedule      cron expressions and intervals: when what repeats comes next
duration      durations as users write them
time_slice    the slices of time in which statistics count jobs
column        resolved values that become columns, and what these cannot hold
values        what JSON has no word for: UNDEFINED
wire          JSON as it is stored and sent
codec         user values at rest, maybe encoded
arguments     what callers hand in, looked at first
"""
