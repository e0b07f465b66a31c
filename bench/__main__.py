"""`python -m bench`, which has put the working directory on the path of modules."""

from bench.imports import forget_working_directory

forget_working_directory()

from bench.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
