"""The demo: a GitOps control plane on one log, with a murder in the middle.

A history of commits is replayed as deployments (``history``, ``workload``) by writer processes (``writer``) that append
to one store at the same time; one is killed with SIGKILL and started again. A reader process follows them, a second one
reads everything afterwards (``reader``). The ``conductor`` starts and kills them, and then compares what the writers
were told is stored (``ledger``) with what the readers read (``verdict``).
"""

from __future__ import annotations
