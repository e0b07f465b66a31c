"""Settings chosen on held-out training images, every method by the same rules.

A trial is a method with settings from its search space (`space.py`) and a run for each seed: ordinary runs in ordinary
directories, made by `bench.launch`. What is tried next follows from the study's own seed, the method and what earlier
rounds have found (`sampling.py`), never from time or from who is quicker: so several processes may be at one study
(`rounds.py`), and one that was killed ends as if undisturbed. What was found is written down in the study's folder
(`record.py`), for Optuna's tools too, and becomes a file of settings (`applying.py`).
"""
