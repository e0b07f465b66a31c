"""Getting image sets, and telling what is missing or damaged in them: `bench data get` and `bench data check`."""
