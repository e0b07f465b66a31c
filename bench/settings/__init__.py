"""Settings: what can be said, in presets, files and `--set`, how that is merged, and what is refused.

Nothing here knows of images, jobs or processes. A new setting is a field of a dataclass in `schema.py` with its range
and a sentence; a preset is a YAML file in `presets/`. `merging.py` makes one `Config` of presets, files and
assignments, and `strategies.py` reads `er,ours(delta=0.7)`. Whatever is refused is one line: a `RequestError`.
"""
