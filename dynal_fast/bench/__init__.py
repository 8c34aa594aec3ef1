"""Time and memory per selection, beside what people use today: ``dynal-fast bench``.

`inputs` and `cases` say what is measured, `competitors` holds the methods, and `suites` what is run
in which order. `measure` makes one measurement: `fresh_process` starts a process, `worker` runs the
method there, `extrapolation` handles jobs that are too large, and `exactness` checks the answer.
`growth` and `end_to_end` are further suites. `record` is the JSON file, `table` and `picture` show
it, and `command` is the command line. Nothing is imported before the command runs.
"""
