"""What is done with networks that runs have kept: they segment images, are exported, are evaluated again.

`segmenter.py` is a network that segments images of any size (`bench.load`); `segmenting.py` is `bench predict`. What a
run keeps, and in which file, stands in `bench/train/keeping.py` and `bench/train/network_file.py`.
"""
