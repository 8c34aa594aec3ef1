"""Time and memory per selection, beside what people use today: ``dynal-fast bench``.

One room each: `inputs` and `cases` (what is measured), `competitors` (the methods), `worker`,
`fresh_process` and `measure` (one measurement), `extrapolation` (jobs too large), `exactness`,
`growth`, `end_to_end`, `suites` (what is run), `record` (JSON), `table`, `picture`, `page`, and
`command` (the command line). Nothing is imported before the command runs.
"""
