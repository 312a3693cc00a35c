"""Small models of the protocol: what DESIGN §6 and RFC 0001 say, run through every schedule there is.

Read `protocol.py` first: it is the protocol, one short generator per role, without bytes, tasks or networks. Then:

    store.py             what a process may ask the store, and what the store does
    protocol.py          writer, sealer, keeper, collector, reader: one `yield` per store request
    promises.py          P1, P3, P4, P6, P7, P11, P12 as predicates over one state of the world
    explorer.py          every schedule of a small world, breadth first; the shortest counterexample
    worlds.py            the small worlds: who runs, from which store, with how many crashes and lost answers
    retention.py         the small worlds with a collector, deletion and time
    random_schedule.py   one random schedule at a time of a large world, from a seed
    bugs.py              mistakes that can be switched on by name
    catalogue.py         which world catches which mistake, and by which promise

`python -m tests.model` runs everything and prints what was explored and what caught each mistake.
A model imports nothing of `logstore`: it is a second opinion, not a test double.
"""
