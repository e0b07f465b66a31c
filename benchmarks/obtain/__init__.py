"""Getting image sets, and telling what is missing or damaged in them: `bench data get` and `bench data check`.

`obtain.py` gets one by what a file for each set (`voc.py`, `ade.py`) says of it; `checking.py` looks at one that is
there and makes a `report.py` of it. Nothing here decides a run's numbers.
"""
