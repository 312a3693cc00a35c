"""Whole systems under one seed: the production code in a simulated world, and checkers of its promises.

``world.py`` lets things happen, ``history.py`` is what was observed, ``truth.py`` what lies in the
bucket in the end, ``checkers.py`` compares the two, ``bugs.py`` proves that they would notice.
"""
