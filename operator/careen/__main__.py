"""`python -m careen` is `careen`."""

from careen.cli.main import main

if __name__ == "__main__":
    main()
