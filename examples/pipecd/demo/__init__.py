"""The demo: a control plane of PipeCD's shape on one log, with two murders in the middle.

Commits are the input. The ``web`` process registers them as events and commands, and asks what people ask in the
console all the while; three ``agent`` processes carry the commands out as deployments, stage by stage; an ``ops``
process looks after the log. One agent and the ops process are killed and started again. The ``conductor`` starts and
kills them; in the end two ``reader`` processes, one of which trusts no snapshot, must have the same documents.

    python -m examples.pipecd.demo
    python -m examples.pipecd.demo s3://bucket/prefix --commits 50
"""
