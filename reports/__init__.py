"""Results out: run directories, and the tables, figures and the HTML report made from them, on a machine without torch.

`run_writer.py` writes a run directory, `records.py` reads it: a `Run` is all that the rest knows. `tables.py` makes
frames of runs; `scenario_tables.py`, `numbered.py`, `costs.py` and `statistics_tables.py` write tables, `curves.py`,
`forgetting.py`, `class_heatmap.py`, `cost_accuracy.py` and `pictures.py` a figure each, and `page/` the report. What
must be said of runs beside their numbers is in `notes.py`; which runs may stand in one table in `conventions.py`.
`literature.py` reads published numbers (`literature/*.yaml`), `literature_tables.py` and `compared.py` write them.

Tables and figures may be changed and added freely. What stands in a run directory (`spec.py`, `steps.py`) is read by
later versions: a change of it raises `SCHEMA`, and older directories are still read.
"""
