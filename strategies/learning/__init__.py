"""What methods are made of and trained by: the template, the method's base classes, memory, losses, evaluation.

`strategy.py` says what a method sees of the template, `template.py` trains a method under the online contract, and
neither knows the other's file. A policy of memory or a loss that several methods need belongs here; what one method
alone needs belongs into its own file above.
"""
