"""From a request to jobs: everything is checked and resolved here before the first file is written.

A job is plain data that can be read and printed (`job.py`); so is what determines a run (`spec.py`), its folder and the
digest of the code that decides its numbers (`deciding.py`). How much work a protocol is stands in `protocols.py`. No
torch is needed but to ask what devices there are, and nothing is trained.
"""
