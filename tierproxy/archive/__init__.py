"""The archive: what is stored, under which names, and how it is written and found again."""
