"""``python -m lotto`` is the command line."""

from lotto.cli.main import main

if __name__ == "__main__":
    main()
