"""What people and programs read of a run: the terminal report and its JSON. Pure: `Analysis -> ...`."""
