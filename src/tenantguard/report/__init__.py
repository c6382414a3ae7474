"""What was found, written for people and for the tools of a pull request."""
