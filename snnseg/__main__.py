"""`python -m snnseg`."""
from snnseg.cli import main

if __name__ == "__main__":
    main()
