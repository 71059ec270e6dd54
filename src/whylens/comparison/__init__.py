"""Models, methods and runs side by side: what is asked, the work, the table, what changed between two runs."""
