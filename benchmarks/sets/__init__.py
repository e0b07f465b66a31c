"""Image sets, one file for each: where its files lie, what its classes are called, how an image is read.

`filed.py` is for sets of files on a disk, `generated.py` for those that are computed from a seed; `registry.py` has
them by name. A new set is a subclass of one of these two.
"""
