"""What is trained: a backbone, a head that grows, and the networks that come along, by name (`build.py`)."""
