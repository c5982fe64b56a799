"""IDS -> IDS: many sequences at once over paged key/value memory. It knows only token ids, no text and no prompts."""
