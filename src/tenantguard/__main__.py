"""`python -m tenantguard`: the command, where its script is not on the path."""

from tenantguard.cli import main

if __name__ == "__main__":
    main()
