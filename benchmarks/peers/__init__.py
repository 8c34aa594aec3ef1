"""The codebases that `dynal_fast` is put into: their own tests, and what their selections cost.

``python -m benchmarks.peers tests`` runs their test files for core-set and uncertainty strategies
against the adapters of `dynal_fast.integrations`. ``python -m benchmarks.peers selections``
measures their core-set steps beside ours and writes the record that `benchmarks.pages` makes a
table of. Both need the environment of ``make test-integrations`` and the sources, which
``--sources FOLDER`` holds or git fetches; none of them is kept in this repository.
"""
