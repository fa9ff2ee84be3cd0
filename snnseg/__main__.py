"""`python -m snnseg`."""
from snnseg.cli.main import main

if __name__ == "__main__":
    main()
