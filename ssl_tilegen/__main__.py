"""`python -m ssl_tilegen` is the command line."""

from ssl_tilegen.cli import main

if __name__ == "__main__":
    main()
