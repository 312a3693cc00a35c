"""Fuzzing: whatever bytes a decoder is given, it returns what they mean or raises one of its errors, and builds little.

    bend.py      how bytes and values are bent: as damage bends them, and as malice does
    objects.py   objects of a store: good ones, and bent ones whose digests are right again
    texts.py     what people and programs pass in: tokens, names, lines, expressions
    targets.py   the list: each decoder, its inputs, its errors, its bounds
    verdict.py   the property that all of them have
    bugs.py      planted mistakes, each of which must be found
    corpus/      inputs that were found, kept for ever: a Python literal each

``python -m tests.fuzz --target NAME --seconds N`` looks for longer; docs/testing.md tells how.
"""
