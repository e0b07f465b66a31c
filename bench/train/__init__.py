"""One job: a base model is trained, a run is made, goes on after a stop, and writes its directory.

`work.py` does a job. `run.py` evaluates and records the steps that a protocol trains: `online.py`, `joint.py`, each a
subclass of `protocol.Training`. `epochs.py` is the training over epochs that base models and `joint` share, on one
device or several (`distributed.py`). What is changed here may change numbers; it then says so by itself, in the digest
that every run records.
"""
