"""The command line: one file for each family of commands. It parses, prints and exits, and knows no rule."""

from bench.cli.entry import main as main
