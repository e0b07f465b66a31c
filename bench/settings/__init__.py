"""Settings: what can be said, in presets, files and `--set`, how that is merged, and what is refused.

Nothing here knows of images, jobs or processes. A new setting is a field of a dataclass in `config.py` with its range
and a sentence; a preset is a YAML file in `presets/`. Whatever is refused is one line: a `RequestError`.
"""
