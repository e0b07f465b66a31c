"""What people see while jobs run, and what they say to them: events, the live view, logs, faults in words, signals.

Events are plain data, so that they cross from a worker to the command that shows them. Nothing here decides a number:
a line may be worded anew without a run being made anew.
"""
