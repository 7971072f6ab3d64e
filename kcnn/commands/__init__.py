"""One module a command: its own flags, and main(argv) that does the work."""
