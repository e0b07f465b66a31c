"""Who makes the jobs, when and where: in this process, in a pool of others, or on a cluster.

`session.py` is the way in. `execution.py` makes a plan here, `pool.py` in processes, in the order of `agenda.py`.
`slurm.py` submits it, in submitit's words by `executor.py`, and a submitted job does what `directory.py` says, which
lies below and knows nothing of submitting. `claims.py` keeps two processes from one job. None of it changes a number.
"""
