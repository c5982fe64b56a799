"""IDS -> IDS: many sequences at once over paged key/value memory. Knows token ids only: no text, no prompt format."""
