"""`python -m bench`, which has put the working directory on the path of modules."""

from bench.start import main

if __name__ == "__main__":
    main()
