"""What is done to the project to see whether it breaks: `make torture` runs all of it, `make test` the short part."""
