"""The read side: views that fold the events of a log into rows, with sorted indexes and queries.

What will stand here: ``Projection`` and ``Index`` (what a user declares), ``View`` (what folds
build, kept at the log's tail and snapshotted back to the store), ``DocumentStore`` (collections
on top of views). Until then the package holds the command line tool, ``projections.cli``.

Imports run one way: ``projections`` imports ``logstore``, never the reverse.
Not here: SQL, joins, views that outgrow a process.
"""
