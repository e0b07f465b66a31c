"""Settings by preset, as YAML."""
